#if canImport(CoreML)
import CoreML
import CoreMLLatency
import Foundation
import LatencyProtocol

let computeUnits: [String: MLComputeUnits] = [
    "all": .all,
    "cpu": .cpuOnly,
    "gpu": .cpuAndGPU,
    "ane": .cpuAndNeuralEngine,
]
let arguments = Array(CommandLine.arguments.dropFirst())
let chosen = arguments.count == 2 ? arguments[1] : "all"
guard (1...2).contains(arguments.count), let units = computeUnits[chosen] else {
    FileHandle.standardError.write(
        Data("usage: bench MODEL.mlpackage [all|cpu|gpu|ane]\n".utf8))
    exit(2)
}

print(ProcessInfo.processInfo.operatingSystemVersionString, "compute units:", chosen)
let model = URL(fileURLWithPath: arguments[0])
let protocols = [
    ("trimmed mean", TimingProtocol.trimmedMean), ("minimum", TimingProtocol.minimum),
]
for (name, timing) in protocols {
    let times = try timeInferences(of: model, by: timing, on: units)
    let value = try latency(times, by: timing)
    print("\(name): \(String(format: "%.3f", value)) ms of \(times.joined().count) inferences")
}
#else
print("bench needs Core ML, that is macOS; `swift test` runs everywhere")
#endif
