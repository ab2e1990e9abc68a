#if canImport(CoreML)
import CoreML
import CoreVideo
import Foundation
import LatencyProtocol

/// The milliseconds of each inference of a saved model, a list per round.
///
/// What is timed is the whole way into Core ML and back, as in the papers. The input is made once
/// and is the same for every inference.
///
/// - Parameters:
///   - model: a `.mlpackage`, or a `.mlmodelc` such as Xcode puts into an app.
public func timeInferences(
    of model: URL, by timing: TimingProtocol, on units: MLComputeUnits
) throws -> [[Double]] {
    let compiled = model.pathExtension == "mlmodelc" ? model : try MLModel.compileModel(at: model)
    let configuration = MLModelConfiguration()
    configuration.computeUnits = units
    let description = try MLModel(contentsOf: compiled, configuration: configuration)
        .modelDescription
    let input = try grey(description)
    return try timeInferences(by: timing, clock: milliseconds) {
        let loaded = try MLModel(contentsOf: compiled, configuration: configuration)
        return { _ = try loaded.prediction(from: input) }
    }
}

func milliseconds() -> Double {
    Double(DispatchTime.now().uptimeNanoseconds) / 1e6
}

/// An input of the kind and size that the model asks for, every value in the middle of its range.
func grey(_ description: MLModelDescription) throws -> MLFeatureProvider {
    var values: [String: MLFeatureValue] = [:]
    for (name, feature) in description.inputDescriptionsByName {
        if let image = feature.imageConstraint {
            values[name] = MLFeatureValue(pixelBuffer: try greyImage(image))
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

func greyImage(_ image: MLImageConstraint) throws -> CVPixelBuffer {
    var created: CVPixelBuffer?
    CVPixelBufferCreate(
        nil, image.pixelsWide, image.pixelsHigh, image.pixelFormatType, nil, &created)
    guard let buffer = created else {
        throw TimingError(
            "no image of \(image.pixelsWide) x \(image.pixelsHigh) pixels to be had")
    }
    CVPixelBufferLockBaseAddress(buffer, [])
    defer { CVPixelBufferUnlockBaseAddress(buffer, []) }
    memset(CVPixelBufferGetBaseAddress(buffer)!, 128, CVPixelBufferGetDataSize(buffer))
    return buffer
}
#endif
