import Foundation

/// What is wrong with an image, a set of logits or a file.
public struct BackboneError: Error, CustomStringConvertible, Equatable {
    public let description: String

    public init(_ description: String) {
        self.description = description
    }
}

/// The kernel of a resize: how much a pixel counts, by its distance.
public enum Interpolation: String, Codable, Sendable {
    case bilinear
    /// Keys' cubic with a = -1/2, as Pillow and torchvision have it.
    case bicubic

    /// Beyond this distance a pixel does not count.
    var support: Double {
        self == .bilinear ? 1 : 2
    }

    func weight(_ distance: Double) -> Double {
        let x = abs(distance)
        switch self {
        case .bilinear:
            return max(0, 1 - x)
        case .bicubic:
            let a = -0.5
            if x < 1 { return ((a + 2) * x - (a + 3)) * x * x + 1 }
            if x < 2 { return (((x - 5) * x + 8) * x - 4) * a }
            return 0
        }
    }
}

/// An image of 8-bit red, green and blue: three bytes a pixel, the rows from top to bottom.
public struct RGBImage: Equatable, Sendable {
    public let width: Int
    public let height: Int
    public let pixels: [UInt8]

    public init(width: Int, height: Int, pixels: [UInt8]) throws {
        guard width > 0, height > 0, pixels.count == 3 * width * height else {
            throw BackboneError(
                "\(pixels.count) bytes for an image of \(width) x \(height) pixels; "
                    + "it has three for each")
        }
        self.width = width
        self.height = height
        self.pixels = pixels
    }

    /// The image with another size, antialiased: where it shrinks, the kernel grows with it, as in
    /// torchvision's `resize`. Columns first, then rows, each rounded to whole grey levels.
    public func resized(
        width newWidth: Int, height newHeight: Int, by interpolation: Interpolation
    ) throws -> RGBImage {
        guard newWidth > 0, newHeight > 0 else {
            throw BackboneError("no image can have \(newWidth) x \(newHeight) pixels")
        }
        let columns = taps(from: width, to: newWidth, by: interpolation)
        var narrow = [UInt8](repeating: 0, count: 3 * newWidth * height)
        for y in 0..<height {
            for x in 0..<newWidth {
                for channel in 0..<3 {
                    let start = 3 * (y * width + columns[x].first) + channel
                    narrow[3 * (y * newWidth + x) + channel] =
                        greyLevel(columns[x].weights) { pixels[start + 3 * $0] }
                }
            }
        }
        let rows = taps(from: height, to: newHeight, by: interpolation)
        var small = [UInt8](repeating: 0, count: 3 * newWidth * newHeight)
        for y in 0..<newHeight {
            for x in 0..<(3 * newWidth) {
                let start = 3 * newWidth * rows[y].first + x
                small[3 * newWidth * y + x] =
                    greyLevel(rows[y].weights) { narrow[start + 3 * newWidth * $0] }
            }
        }
        return try RGBImage(width: newWidth, height: newHeight, pixels: small)
    }

    /// The image with its short side of `size` pixels; the long side is rounded down, as
    /// torchvision does.
    public func resized(shortSide size: Int, by interpolation: Interpolation) throws -> RGBImage {
        let wide = width > height
        let long = wide ? size * width / height : size * height / width
        return try resized(
            width: wide ? long : size, height: wide ? size : long, by: interpolation)
    }

    /// The square of `size` pixels in the middle. An odd pixel is shared out as Python rounds: to
    /// the even number.
    public func centerCropped(_ size: Int) throws -> RGBImage {
        guard size > 0, size <= width, size <= height else {
            throw BackboneError(
                "a square of \(size) pixels does not fit into \(width) x \(height); resize first")
        }
        let left = Int((Double(width - size) / 2).rounded(.toNearestOrEven))
        let top = Int((Double(height - size) / 2).rounded(.toNearestOrEven))
        let rows = (top..<(top + size)).map { y in
            pixels[(3 * (y * width + left))..<(3 * (y * width + left + size))]
        }
        return try RGBImage(width: size, height: size, pixels: rows.flatMap { $0 })
    }

    /// `(v / 255 - mean) / std` of each channel, one channel after the other: the tensor
    /// `(3, height, width)` for a network without a normalisation of its own.
    ///
    /// The packages that `paperrepro export` writes normalise inside, and take the pixels.
    public func normalized(mean: [Float], std: [Float]) throws -> [Float] {
        guard mean.count == 3, std.count == 3, std.allSatisfy({ $0 > 0 }) else {
            throw BackboneError("a mean and a positive deviation for each of 3 channels are needed")
        }
        var tensor: [Float] = []
        tensor.reserveCapacity(pixels.count)
        for channel in 0..<3 {
            for pixel in 0..<(width * height) {
                let value = Float(pixels[3 * pixel + channel]) / 255
                tensor.append((value - mean[channel]) / std[channel])
            }
        }
        return tensor
    }
}

/// Which pixels an output pixel is the mean of.
struct Taps {
    let first: Int
    let weights: [Double]
}

func taps(from old: Int, to new: Int, by interpolation: Interpolation) -> [Taps] {
    let scale = Double(old) / Double(new)
    let stretch = max(scale, 1)
    let support = interpolation.support * stretch
    return (0..<new).map { place in
        let center = (Double(place) + 0.5) * scale
        let first = max(0, Int(center - support + 0.5))
        let end = min(old, Int(center + support + 0.5))
        let weights = (first..<end).map {
            interpolation.weight((Double($0) - center + 0.5) / stretch)
        }
        let sum = weights.reduce(0, +)
        return Taps(first: first, weights: weights.map { $0 / sum })
    }
}

func greyLevel(_ weights: [Double], _ pixel: (Int) -> UInt8) -> UInt8 {
    var sum = 0.5
    for index in weights.indices {
        sum += weights[index] * Double(pixel(index))
    }
    return UInt8(min(max(sum, 0), 255))
}
