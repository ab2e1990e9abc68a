import Foundation

/// What a network says of one image.
public enum Answer: Equatable, Sendable {
    /// The likeliest classes, the likeliest first.
    case classes([Guess])
    /// A class for each pixel, the image that was looked at, and what the classes are called.
    case map([Int], over: RGBImage, legend: Legend)
}

/// A class and how likely the network takes it to be.
public struct Guess: Equatable, Sendable {
    public let name: String
    public let probability: Double

    public init(name: String, probability: Double) {
        self.name = name
        self.probability = probability
    }
}

/// Logits as probabilities: positive, with the sum 1.
public func softmax(_ logits: [Double]) throws -> [Double] {
    guard let largest = logits.max(), logits.allSatisfy(\.isFinite) else {
        throw BackboneError(
            "\(logits.count) logits of which one is no finite number: the package is damaged, or "
                + "half precision overflowed")
    }
    let powers = logits.map { exp($0 - largest) }
    let sum = powers.reduce(0, +)
    return powers.map { $0 / sum }
}

/// The likeliest classes, the likeliest first; of equals the one with the smaller number.
public func top(
    _ count: Int, of probabilities: [Double], names: [String]
) throws -> [Guess] {
    guard names.count == probabilities.count else {
        throw BackboneError("\(names.count) names for \(probabilities.count) classes")
    }
    let order = probabilities.indices.sorted {
        (-probabilities[$0], $0) < (-probabilities[$1], $1)
    }
    return order.prefix(count).map {
        Guess(name: names[$0], probability: probabilities[$0])
    }
}

/// Of each pixel the class with the largest logit; of equals the one with the smaller number.
///
/// - Parameters:
///   - logits: `(classes, height, width)`, one class after the other.
public func classMap(_ logits: [Float], classes: Int) throws -> [Int] {
    guard classes > 0, logits.count % classes == 0 else {
        throw BackboneError("\(logits.count) logits are no \(classes) maps of one size")
    }
    let pixels = logits.count / classes
    return (0..<pixels).map { pixel in
        (0..<classes).reduce(0) { best, other in
            logits[other * pixels + pixel] > logits[best * pixels + pixel] ? other : best
        }
    }
}

/// A class map laid over the image that it belongs to.
///
/// - Parameters:
///   - share: how much of a pixel is the class's colour, 0 to 1.
public func overlay(
    _ map: [Int], on image: RGBImage, legend: Legend, share: Double
) throws -> RGBImage {
    guard map.count == image.width * image.height else {
        throw BackboneError(
            "a map of \(map.count) pixels on an image of \(image.width) x \(image.height)")
    }
    var pixels = image.pixels
    for (place, number) in map.enumerated() {
        guard legend.colors.indices.contains(number) else {
            throw BackboneError("class \(number) of a network of \(legend.colors.count)")
        }
        for (channel, level) in legend.colors[number].channels.enumerated() {
            let old = Double(pixels[3 * place + channel])
            pixels[3 * place + channel] =
                UInt8((share * Double(level) + (1 - share) * old).rounded())
        }
    }
    return try RGBImage(width: image.width, height: image.height, pixels: pixels)
}
