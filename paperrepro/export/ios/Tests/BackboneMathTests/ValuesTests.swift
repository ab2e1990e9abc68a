import Foundation
import XCTest

@testable import BackboneMath

/// What torchvision, PyTorch and NumPy make of the same numbers; `tests/test_swift.py` writes it.
struct Values: Decodable {
    struct Image: Decodable {
        let width: Int
        let height: Int
        let pixels: Data

        func image() throws -> RGBImage {
            try RGBImage(width: width, height: height, pixels: Array(pixels))
        }
    }
    struct Preparation: Decodable {
        let name: String
        let image: Image
        let interpolation: Interpolation
        let width: Int?
        let height: Int?
        let shortSide: Int?
        let crop: Int?
        let expected: Image
    }
    struct Normalization: Decodable {
        let image: Image
        let mean: [Float]
        let std: [Float]
        let expected: [Float]
    }
    struct Softmax: Decodable {
        let logits: [Double]
        let probabilities: [Double]
        let top: [Int]
    }
    struct Segmentation: Decodable {
        let logits: [Float]
        let classes: Int
        let map: [Int]
        let image: Image
        let preview: String
        let names: [String]
        let share: Double
        let shares: [Double]
        let overlay: Image
    }
    struct Percentiles: Decodable {
        let times: [Double]
        let shares: [Double]
        let values: [Double]
    }

    let preparations: [Preparation]
    let normalizations: [Normalization]
    let softmax: [Softmax]
    let segmentations: [Segmentation]
    let colors: [[UInt8]]
    let percentiles: [Percentiles]
}

final class ValuesTests: XCTestCase {
    func values() throws -> Values {
        let file = try XCTUnwrap(Bundle.module.url(forResource: "values", withExtension: "json"))
        return try JSONDecoder().decode(Values.self, from: Data(contentsOf: file))
    }

    /// Within one grey level of torchvision; the share of exact pixels is held too.
    func testImagesArePreparedAsTorchvisionDoes() throws {
        for each in try values().preparations {
            var image = try each.image.image()
            if let side = each.shortSide {
                image = try image.resized(shortSide: side, by: each.interpolation)
            }
            if let width = each.width, let height = each.height {
                image = try image.resized(width: width, height: height, by: each.interpolation)
            }
            if let side = each.crop {
                image = try image.centerCropped(side)
            }
            let expected = try each.expected.image()
            XCTAssertEqual(image.width, expected.width, each.name)
            XCTAssertEqual(image.height, expected.height, each.name)
            let differences = zip(image.pixels, expected.pixels).map { abs(Int($0) - Int($1)) }
            XCTAssertLessThanOrEqual(differences.max()!, 1, each.name)
            let exact = Double(differences.filter { $0 == 0 }.count) / Double(differences.count)
            XCTAssertGreaterThan(exact, 0.97, each.name)
        }
    }

    func testNormalization() throws {
        for each in try values().normalizations {
            let found = try each.image.image().normalized(mean: each.mean, std: each.std)
            XCTAssertEqual(found.count, each.expected.count)
            for (value, expected) in zip(found, each.expected) {
                XCTAssertEqual(value, expected, accuracy: 1e-6)
            }
        }
    }

    func testSoftmaxAndTheLikeliestClasses() throws {
        for each in try values().softmax {
            let found = try softmax(each.logits)
            for (value, expected) in zip(found, each.probabilities) {
                XCTAssertEqual(value, expected, accuracy: 1e-12)
            }
            let names = found.indices.map { "class \($0)" }
            let best = try top(each.top.count, of: found, names: names)
            XCTAssertEqual(best.map(\.name), each.top.map { "class \($0)" })
            XCTAssertEqual(best.map(\.probability), best.map(\.probability).sorted(by: >))
        }
    }

    func testSegmentationIsDrawnOverItsImage() throws {
        for each in try values().segmentations {
            let map = try classMap(each.logits, classes: each.classes)
            XCTAssertEqual(map, each.map)
            let legend = try Legend(preview: each.preview)
            XCTAssertEqual(legend.names, each.names)
            let drawn = try overlay(
                map, on: each.image.image(), legend: legend, share: each.share)
            XCTAssertEqual(drawn, try each.overlay.image())
            let shares = legend.shares(of: map)
            XCTAssertEqual(shares.map(\.share), shares.map(\.share).sorted(by: >))
            for (number, share) in shares {
                XCTAssertEqual(share, each.shares[number], accuracy: 1e-12)
            }
        }
    }

    func testColorsAreThoseOfPascalVOC() throws {
        let colors = try values().colors
        XCTAssertEqual(Legend(classes: colors.count).colors.map(\.channels), colors)
    }

    func testPercentilesAreNumPys() throws {
        for each in try values().percentiles {
            for (share, expected) in zip(each.shares, each.values) {
                XCTAssertEqual(
                    try percentile(each.times, share), expected, accuracy: 1e-12 * expected)
            }
        }
    }

    func testWhatCannotBeIsRefused() throws {
        XCTAssertThrowsError(try RGBImage(width: 2, height: 2, pixels: [0, 0, 0]))
        let image = try RGBImage(width: 2, height: 1, pixels: [0, 0, 0, 9, 9, 9])
        XCTAssertThrowsError(try image.centerCropped(2))
        XCTAssertThrowsError(try image.resized(width: 0, height: 1, by: .bilinear))
        XCTAssertThrowsError(try image.normalized(mean: [0], std: [1]))
        XCTAssertThrowsError(try image.normalized(mean: [0, 0, 0], std: [1, 0, 1]))
        XCTAssertThrowsError(try softmax([1, .nan]))
        XCTAssertThrowsError(try softmax([1, .infinity]))
        XCTAssertThrowsError(try softmax([]))
        XCTAssertThrowsError(try top(1, of: [0.5, 0.5], names: ["one"]))
        XCTAssertThrowsError(try classMap([1, 2, 3], classes: 2))
        let legend = Legend(classes: 2)
        XCTAssertThrowsError(try overlay([0], on: image, legend: legend, share: 0.5))
        XCTAssertThrowsError(try overlay([0, 2], on: image, legend: legend, share: 0.5))
        for preview in [
            "", "{}", #"{"labels": [], "colors": []}"#, #"{"labels": ["a"], "colors": []}"#,
            #"{"labels": ["a"], "colors": ["red"]}"#,
            ##"{"labels": ["a"], "colors": ["#12345g"]}"##,
        ] {
            XCTAssertThrowsError(try Legend(preview: preview), preview)
        }
        XCTAssertThrowsError(try percentile([], 0.5))
        XCTAssertThrowsError(try percentile([1], 95))
        XCTAssertThrowsError(try percentile([1, .nan], 0.5))
    }
}
