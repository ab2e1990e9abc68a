#if canImport(CoreML)
import BackboneMath
import CoreML
import Foundation

/// A package that `paperrepro export` wrote, loaded: an image in, classes or a map of classes out.
public final class Network: @unchecked Sendable {
    /// The sides of the image that the package takes.
    public let width: Int
    public let height: Int
    let model: MLModel
    let input: String
    /// Names and colours of a segmenter's classes, where the package has them.
    let legend: Legend?

    /// - Parameters:
    ///   - model: a `.mlpackage`, or a `.mlmodelc` such as Xcode puts into an app.
    public init(_ model: URL, on units: ComputeUnits) throws {
        let compiled = try compiledModel(model)
        self.model = try MLModel(contentsOf: compiled, configuration: configuration(for: units))
        let inputs = self.model.modelDescription.inputDescriptionsByName
        guard inputs.count == 1, let (name, feature) = inputs.first,
            let image = feature.imageConstraint
        else {
            throw BackboneError(
                "\(model.lastPathComponent) takes no image: export_coreml(..., image=True)")
        }
        input = name
        width = image.pixelsWide
        height = image.pixelsHigh
        let metadata = self.model.modelDescription.metadata[.creatorDefinedKey] as? [String: String]
        legend = try metadata?["com.apple.coreml.model.preview.params"].map(Legend.init(preview:))
    }

    /// What the network says of an image of any size: its short side is resized and its middle
    /// cropped, as `paperrepro evaluate` does.
    ///
    /// - Parameters:
    ///   - crop: which share of the resized image's short side the crop keeps.
    public func answer(
        _ image: RGBImage, crop: Double = 0.875, interpolation: Interpolation = .bicubic
    ) throws -> Answer {
        let short = Int(Double(min(width, height)) / crop)
        let prepared =
            width == height
            ? try image.resized(shortSide: short, by: interpolation).centerCropped(width)
            : try image.resized(width: width, height: height, by: interpolation)
        let value = MLFeatureValue(pixelBuffer: try pixelBuffer(prepared))
        let outputs = try model.prediction(
            from: MLDictionaryFeatureProvider(dictionary: [input: value]))
        return try read(outputs, of: prepared)
    }

    func read(_ outputs: MLFeatureProvider, of image: RGBImage) throws -> Answer {
        if let name = model.modelDescription.predictedProbabilitiesName {
            let found = outputs.featureValue(for: name)?.dictionaryValue ?? [:]
            let names = found.keys.map { "\($0)" }.sorted()
            let probabilities = names.map { found[$0]?.doubleValue ?? .nan }
            guard probabilities.allSatisfy(\.isFinite) else {
                throw BackboneError("a probability is no number: the package is damaged")
            }
            return .classes(try top(5, of: probabilities, names: names))
        }
        guard outputs.featureNames.count == 1, let name = outputs.featureNames.first,
            let array = outputs.featureValue(for: name)?.multiArrayValue
        else {
            throw BackboneError("the package has another output than logits")
        }
        let shape = array.shape.map(\.intValue)
        if shape == [1, image.height, image.width], let legend {
            return .map((0..<array.count).map { array[$0].intValue }, over: image, legend: legend)
        }
        let logits = (0..<array.count).map { array[$0].doubleValue }
        switch shape.count {
        case 2:
            let names = logits.indices.map { "class \($0)" }
            return .classes(try top(5, of: softmax(logits), names: names))
        case 4 where shape[2] == image.height && shape[3] == image.width:
            return .map(
                try classMap(logits.map(Float.init), classes: shape[1]), over: image,
                legend: legend ?? Legend(classes: shape[1]))
        default:
            throw BackboneError("an output of the shape \(shape), no logits and no map of classes")
        }
    }
}
#endif
