import XCTest

@testable import BackboneMath

final class MeasurementTests: XCTestCase {
    let setting = Setting(
        network: "mobileone_s0", megabytes: 4.25, device: "iPhone14,4", system: "iOS 18.1",
        computeUnits: "all", date: "2026-11-21")

    /// A phone whose inferences take 1, 2, 3, ... 50 ms over and over, its first one 7.5, a load
    /// 120, and that is warm in the end.
    func measured(progress: (Double) throws -> Void = { _ in }) throws -> PhoneMeasurement {
        var now = 0.0
        var loads = 0
        return try PhoneMeasurement(
            of: setting,
            clock: { now },
            thermalState: { loads > 1 ? "fair" : "nominal" },
            progress: progress,
            load: {
                loads += 1
                now += 120
                var runs = 0
                return {
                    now += runs == 0 ? 7.5 : Double(1 + (runs - 1) % 50)
                    runs += 1
                }
            })
    }

    func testNumbersComeFromTheTimes() throws {
        let found = try measured()
        XCTAssertEqual(found.load, 120)
        XCTAssertEqual(found.firstInference, 7.5)
        XCTAssertEqual(found.minimum, 1)
        XCTAssertEqual(found.trimmedMean, 25.5, accuracy: 1e-9)
        XCTAssertEqual(found.median, 25.5)
        XCTAssertEqual(found.percentile95, 48)
        XCTAssertEqual(found.thermalBefore, "nominal")
        XCTAssertEqual(found.thermalAfter, "fair")
    }

    func testProgressRisesToTheEndAndCanStop() throws {
        var told: [Double] = []
        _ = try measured { told.append($0) }
        XCTAssertEqual(told, told.sorted())
        XCTAssertEqual(told.last!, 1, accuracy: 1e-12)
        XCTAssertEqual(told.count, 3500)
        XCTAssertThrowsError(try measured { if $0 > 0.5 { throw CancellationError() } }) {
            XCTAssertTrue($0 is CancellationError)
        }
    }

    func testRowsHaveTheNamedColumns() throws {
        let lines = csv([try measured()]).components(separatedBy: "\r\n")
        XCTAssertEqual(lines[0].components(separatedBy: ","), PhoneMeasurement.columns)
        XCTAssertEqual(
            lines[1],
            "mobileone_s0,4.2500,\"iPhone14,4\",iOS 18.1,all,120.0000,7.5000,25.5000,48.0000,"
                + "1.0000,25.5000,nominal,fair,2026-11-21")
        XCTAssertEqual(lines.count, 3)
    }

    func testFieldsAreQuoted() {
        XCTAssertEqual(quoted("plain"), "plain")
        XCTAssertEqual(quoted("a,b"), "\"a,b\"")
        XCTAssertEqual(quoted("say \"x\""), "\"say \"\"x\"\"\"")
        XCTAssertEqual(quoted("two\nlines"), "\"two\nlines\"")
        XCTAssertEqual(quoted("two\r\nlines"), "\"two\r\nlines\"")
    }
}
