#if canImport(CoreML)
import BackboneMath
import CoreML
import CoreVideo
import Foundation

/// A saved model, measured by both protocols of the papers.
///
/// What is timed is the whole way into Core ML and back, as in the papers. The input is made once
/// and is the same for every inference. It takes 3500 inferences and 52 loads.
///
/// - Parameters:
///   - model: a `.mlpackage`, or a `.mlmodelc` such as Xcode puts into an app.
///   - date: today, as 2026-11-21.
///   - progress: told which share is done; what it throws ends the measurement.
public func measure(
    _ model: URL, on units: ComputeUnits, date: String,
    progress: (Double) throws -> Void = { _ in }
) throws -> PhoneMeasurement {
    let compiled = try compiledModel(model)
    let configuration = configuration(for: units)
    let description = try MLModel(contentsOf: compiled, configuration: configuration)
        .modelDescription
    let input = try grey(description)
    let setting = Setting(
        network: model.deletingPathExtension().lastPathComponent,
        megabytes: try megabytes(compiled), device: hardware(),
        system: ProcessInfo.processInfo.operatingSystemVersionString,
        computeUnits: units.rawValue, date: date)
    return try PhoneMeasurement(
        of: setting, clock: milliseconds, thermalState: thermalState, progress: progress,
        load: {
            let loaded = try MLModel(contentsOf: compiled, configuration: configuration)
            return { _ = try loaded.prediction(from: input) }
        })
}

func compiledModel(_ model: URL) throws -> URL {
    model.pathExtension == "mlmodelc" ? model : try MLModel.compileModel(at: model)
}

func configuration(for units: ComputeUnits) -> MLModelConfiguration {
    let configuration = MLModelConfiguration()
    switch units {
    case .all: configuration.computeUnits = .all
    case .cpu: configuration.computeUnits = .cpuOnly
    case .gpu: configuration.computeUnits = .cpuAndGPU
    case .neuralEngine: configuration.computeUnits = .cpuAndNeuralEngine
    }
    return configuration
}

func milliseconds() -> Double {
    Double(DispatchTime.now().uptimeNanoseconds) / 1e6
}

func thermalState() -> String {
    switch ProcessInfo.processInfo.thermalState {
    case .nominal: return "nominal"
    case .fair: return "fair"
    case .serious: return "serious"
    case .critical: return "critical"
    @unknown default: return "unknown"
    }
}

/// The name of the hardware, as "iPhone14,4".
func hardware() -> String {
    var system = utsname()
    uname(&system)
    return withUnsafeBytes(of: &system.machine) { bytes in
        String(decoding: bytes.prefix { $0 != 0 }, as: UTF8.self)
    }
}

/// The size of a folder with all that it holds.
func megabytes(_ folder: URL) throws -> Double {
    let files = FileManager.default.enumerator(
        at: folder, includingPropertiesForKeys: [.fileSizeKey])
    var bytes = 0
    while let file = files?.nextObject() as? URL {
        bytes += try file.resourceValues(forKeys: [.fileSizeKey]).fileSize ?? 0
    }
    return Double(bytes) / 1e6
}

/// An input of the kind and size that the model asks for, every value in the middle of its range.
func grey(_ description: MLModelDescription) throws -> MLFeatureProvider {
    var values: [String: MLFeatureValue] = [:]
    for (name, feature) in description.inputDescriptionsByName {
        if let image = feature.imageConstraint {
            let count = 3 * image.pixelsWide * image.pixelsHigh
            let grey = try RGBImage(
                width: image.pixelsWide, height: image.pixelsHigh,
                pixels: [UInt8](repeating: 128, count: count))
            values[name] = MLFeatureValue(pixelBuffer: try pixelBuffer(grey))
        } else if let tensor = feature.multiArrayConstraint {
            let array = try MLMultiArray(shape: tensor.shape, dataType: tensor.dataType)
            for index in 0..<array.count {
                array[index] = 0.5
            }
            values[name] = MLFeatureValue(multiArray: array)
        } else {
            throw TimingError("input \(name) is neither an image nor a tensor")
        }
    }
    return try MLDictionaryFeatureProvider(dictionary: values)
}

/// An image as Core ML takes it: blue, green, red and a byte of nothing.
func pixelBuffer(_ image: RGBImage) throws -> CVPixelBuffer {
    var created: CVPixelBuffer?
    CVPixelBufferCreate(
        nil, image.width, image.height, kCVPixelFormatType_32BGRA, nil, &created)
    guard let buffer = created else {
        throw BackboneError("no image of \(image.width) x \(image.height) pixels to be had")
    }
    CVPixelBufferLockBaseAddress(buffer, [])
    defer { CVPixelBufferUnlockBaseAddress(buffer, []) }
    guard let base = CVPixelBufferGetBaseAddress(buffer) else {
        throw BackboneError("an image without memory")
    }
    let stride = CVPixelBufferGetBytesPerRow(buffer)
    let bytes = base.assumingMemoryBound(to: UInt8.self)
    for y in 0..<image.height {
        for x in 0..<image.width {
            let from = 3 * (y * image.width + x)
            let to = y * stride + 4 * x
            for channel in 0..<3 {
                bytes[to + channel] = image.pixels[from + 2 - channel]
            }
            bytes[to + 3] = 255
        }
    }
    return buffer
}

/// A frame of the camera, 32BGRA, as our image.
public func rgbImage(_ buffer: CVPixelBuffer) throws -> RGBImage {
    CVPixelBufferLockBaseAddress(buffer, [.readOnly])
    defer { CVPixelBufferUnlockBaseAddress(buffer, [.readOnly]) }
    guard CVPixelBufferGetPixelFormatType(buffer) == kCVPixelFormatType_32BGRA,
        let base = CVPixelBufferGetBaseAddress(buffer)
    else {
        throw BackboneError("a frame that is not 32BGRA; set the output's videoSettings")
    }
    let width = CVPixelBufferGetWidth(buffer)
    let height = CVPixelBufferGetHeight(buffer)
    let stride = CVPixelBufferGetBytesPerRow(buffer)
    let bytes = base.assumingMemoryBound(to: UInt8.self)
    var pixels = [UInt8](repeating: 0, count: 3 * width * height)
    for y in 0..<height {
        for x in 0..<width {
            for channel in 0..<3 {
                pixels[3 * (y * width + x) + channel] = bytes[y * stride + 4 * x + 2 - channel]
            }
        }
    }
    return try RGBImage(width: width, height: height, pixels: pixels)
}
#endif
