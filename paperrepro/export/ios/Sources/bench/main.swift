#if canImport(CoreML)
import BackboneCoreML
import BackboneMath
import Foundation

func say(_ text: String) {
    FileHandle.standardError.write(Data((text + "\n").utf8))
}

let arguments = Array(CommandLine.arguments.dropFirst())
let chosen = arguments.count == 2 ? arguments[1] : "all"
guard (1...2).contains(arguments.count), let units = ComputeUnits(rawValue: chosen) else {
    say("usage: bench MODEL.mlpackage [all|cpu|gpu|ane] > results.csv")
    exit(2)
}

let today = String(Date().formatted(.iso8601).prefix(10))
do {
    let found = try measure(URL(fileURLWithPath: arguments[0]), on: units, date: today)
    print(csv([found]), terminator: "")
    say("paperrepro phone-report draws such a file beside the papers' numbers")
} catch {
    say("\(arguments[0]): \(error)")
    exit(1)
}
#else
print("bench needs Core ML, that is macOS; `swift test` runs everywhere")
#endif
