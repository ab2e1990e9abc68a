import BackboneMath
import Foundation
import XCTest

@testable import CamModel

@available(iOS 17, macOS 14, *)
@MainActor
final class CamModelTests: XCTestCase {
    let image = try! RGBImage(width: 1, height: 1, pixels: [1, 2, 3])

    /// A clock that goes on by 4 ms each time it is looked at.
    final class Clock: @unchecked Sendable {
        private let lock = NSLock()
        private var time = 0.0
        func read() -> Double {
            lock.withLock {
                time += 4
                return time
            }
        }
    }

    func model(
        loading: @escaping CamModel.Loading = { name, _ in
            { _ in .classes([Guess(name: name, probability: 1)]) }
        },
        measuring: @escaping CamModel.Measuring = { name, units, progress in
            let clock = Clock()
            let setting = Setting(
                network: name, megabytes: 1, device: "test", system: "test",
                computeUnits: units.rawValue, date: "2026-11-21")
            return try PhoneMeasurement(
                of: setting, clock: { clock.read() }, thermalState: { "nominal" },
                progress: progress, load: { {} })
        }
    ) -> CamModel {
        let clock = Clock()
        return CamModel(
            networks: ["a", "b"], loading: loading, measuring: measuring, clock: { clock.read() })
    }

    func testAnImageGetsItsAnswerAndItsTime() async {
        let model = model()
        let early = await model.see(image)
        XCTAssertFalse(early, "nothing is loaded")
        await model.choose("a", on: .cpu)
        XCTAssertEqual(model.state, .ready)
        let seen = await model.see(image)
        XCTAssertTrue(seen)
        XCTAssertEqual(model.answer, .classes([Guess(name: "a", probability: 1)]))
        XCTAssertEqual(model.latency, 4)
    }

    func testTheLatencyIsOfTheLatestAnswersOnly() async {
        let model = model()
        await model.choose("a", on: .all)
        for _ in 0..<40 { await model.see(image) }
        XCTAssertEqual(model.times.count, 30)
        await model.choose("b", on: .all)
        XCTAssertEqual(model.times, [])
        XCTAssertNil(model.answer)
        XCTAssertNil(model.latency)
    }

    func testAFrameThatComesTooEarlyIsDropped() async {
        let slow = model(loading: { _, _ in
            { _ in
                Thread.sleep(forTimeInterval: 0.05)
                return .classes([])
            }
        })
        await slow.choose("a", on: .all)
        let image = image
        async let first = slow.see(image)
        async let second = slow.see(image)
        let seen = await [first, second]
        XCTAssertEqual(seen.filter { $0 }.count, 1)
    }

    func testAnErrorIsShownAndAnotherNetworkHelps() async {
        let model = model(loading: { name, _ in
            if name == "a" { throw BackboneError("takes no image") }
            return { _ in throw BackboneError("is damaged") }
        })
        await model.choose("a", on: .all)
        XCTAssertEqual(model.state, .failed("a: takes no image"))
        await model.choose("b", on: .all)
        XCTAssertEqual(model.state, .ready)
        await model.see(image)
        XCTAssertEqual(model.state, .failed("is damaged"))
    }

    func testAMeasurementBecomesARow() async {
        let model = model()
        await model.measure()
        XCTAssertEqual(model.measurements, [], "nothing is loaded")
        await model.choose("a", on: .neuralEngine)
        await model.measure()
        XCTAssertEqual(model.state, .ready)
        XCTAssertEqual(model.measurements.map(\.setting.network), ["a"])
        XCTAssertEqual(model.measurements.map(\.minimum), [4])
        XCTAssertTrue(model.report.contains("a,1.0000,test,test,ane"))
    }

    func testAMeasurementStops() async {
        let model = model(measuring: { name, _, progress in
            for step in 0... {
                try progress(Double(step % 100) / 100)
                Thread.sleep(forTimeInterval: 0.001)
            }
            throw BackboneError("\(name) ran for ever")
        })
        await model.choose("a", on: .all)
        async let measured: Void = model.measure()
        while model.state == .ready { await Task.yield() }
        let seen = await model.see(image)
        XCTAssertFalse(seen, "a frame is dropped while the network is timed")
        model.stop()
        await measured
        XCTAssertEqual(model.state, .ready)
        XCTAssertEqual(model.measurements, [])
    }
}
