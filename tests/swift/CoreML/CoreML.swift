// A stand-in for Apple's Core ML, for type checks where there is none: the names and types that the
// package uses, as Apple's documentation gives them, and no content. It is never shipped; code that
// passes with it has been type-checked, and has not run.
import CoreVideo
import Foundation

public enum MLComputeUnits: Int { case cpuOnly, cpuAndGPU, all, cpuAndNeuralEngine }

public enum MLMultiArrayDataType: Int { case double, float32, float16, int32 }

open class MLModelConfiguration: NSObject {
    open var computeUnits: MLComputeUnits { get { fatalError() } set { fatalError() } }
}

open class MLImageConstraint: NSObject {
    open var pixelsHigh: Int { fatalError() }
    open var pixelsWide: Int { fatalError() }
    open var pixelFormatType: OSType { fatalError() }
}

open class MLMultiArrayConstraint: NSObject {
    open var shape: [NSNumber] { fatalError() }
    open var dataType: MLMultiArrayDataType { fatalError() }
}

open class MLFeatureDescription: NSObject {
    open var imageConstraint: MLImageConstraint? { fatalError() }
    open var multiArrayConstraint: MLMultiArrayConstraint? { fatalError() }
}

open class MLModelDescription: NSObject {
    open var inputDescriptionsByName: [String: MLFeatureDescription] { fatalError() }
    open var predictedProbabilitiesName: String? { fatalError() }
    open var metadata: [MLModelMetadataKey: Any] { fatalError() }
}

public struct MLModelMetadataKey: RawRepresentable, Hashable, Sendable {
    public let rawValue: String
    public init(rawValue: String) { self.rawValue = rawValue }
    public static let creatorDefinedKey = MLModelMetadataKey(rawValue: "creator")
}

open class MLMultiArray: NSObject {
    public init(shape: [NSNumber], dataType: MLMultiArrayDataType) throws { fatalError() }
    open var count: Int { fatalError() }
    open var shape: [NSNumber] { fatalError() }
    open subscript(index: Int) -> NSNumber { get { fatalError() } set { fatalError() } }
}

open class MLFeatureValue: NSObject {
    public init(pixelBuffer: CVPixelBuffer) { fatalError() }
    public init(multiArray: MLMultiArray) { fatalError() }
    open var multiArrayValue: MLMultiArray? { fatalError() }
    open var dictionaryValue: [AnyHashable: NSNumber] { fatalError() }
}

public protocol MLFeatureProvider {
    var featureNames: Set<String> { get }
    func featureValue(for featureName: String) -> MLFeatureValue?
}

open class MLDictionaryFeatureProvider: NSObject, MLFeatureProvider {
    public init(dictionary: [String: Any]) throws { fatalError() }
    open var featureNames: Set<String> { fatalError() }
    open func featureValue(for featureName: String) -> MLFeatureValue? { fatalError() }
}

open class MLModel: NSObject {
    public init(contentsOf url: URL, configuration: MLModelConfiguration) throws { fatalError() }
    open class func compileModel(at url: URL) throws -> URL { fatalError() }
    open var modelDescription: MLModelDescription { fatalError() }
    open func prediction(from input: MLFeatureProvider) throws -> MLFeatureProvider { fatalError() }
}

/// Foundation's on Apple's systems; Linux has none.
extension ProcessInfo {
    public enum ThermalState: Int { case nominal, fair, serious, critical }
    public var thermalState: ThermalState { fatalError() }
}
