import BackboneMath
import CoreGraphics
import UIKit

extension RGBImage {
    var cgImage: CGImage? {
        guard let provider = CGDataProvider(data: Data(pixels) as CFData) else { return nil }
        return CGImage(
            width: width, height: height, bitsPerComponent: 8, bitsPerPixel: 24,
            bytesPerRow: 3 * width, space: CGColorSpace(name: CGColorSpace.sRGB)!,
            bitmapInfo: CGBitmapInfo(rawValue: CGImageAlphaInfo.none.rawValue), provider: provider,
            decode: nil, shouldInterpolate: false, intent: .defaultIntent)
    }

    /// A photograph, upright: its orientation is applied.
    init(_ photo: UIImage) throws {
        let format = UIGraphicsImageRendererFormat()
        format.scale = 1
        let size = CGSize(
            width: (photo.size.width * photo.scale).rounded(),
            height: (photo.size.height * photo.scale).rounded())
        let upright = UIGraphicsImageRenderer(size: size, format: format).image { _ in
            photo.draw(in: CGRect(origin: .zero, size: size))
        }
        let (width, height) = (Int(size.width), Int(size.height))
        var bytes = [UInt8](repeating: 0, count: 4 * width * height)
        guard let source = upright.cgImage,
            let context = CGContext(
                data: &bytes, width: width, height: height, bitsPerComponent: 8,
                bytesPerRow: 4 * width, space: CGColorSpace(name: CGColorSpace.sRGB)!,
                bitmapInfo: CGImageAlphaInfo.noneSkipLast.rawValue)
        else {
            throw BackboneError("the photograph cannot be read")
        }
        context.draw(source, in: CGRect(x: 0, y: 0, width: width, height: height))
        let pixels = stride(from: 0, to: bytes.count, by: 4).flatMap { bytes[$0..<($0 + 3)] }
        try self.init(width: width, height: height, pixels: pixels)
    }
}
