import BackboneMath
import Foundation
import XCTest

struct Cases: Decodable {
    struct Case: Decodable {
        let name: String
        let timing: TimingProtocol
        let times: [[Double]]
        let latency: Double?
    }

    let protocols: [String: TimingProtocol]
    let cases: [Case]
}

final class ProtocolTests: XCTestCase {
    func cases() throws -> Cases {
        let file = try XCTUnwrap(Bundle.module.url(forResource: "cases", withExtension: "json"))
        return try JSONDecoder().decode(Cases.self, from: Data(contentsOf: file))
    }

    func testProtocolsAreThoseOfThePapers() throws {
        let expected = [
            "trimmed_mean": TimingProtocol.trimmedMean, "minimum": TimingProtocol.minimum,
        ]
        XCTAssertEqual(try cases().protocols, expected)
    }

    func testEveryCase() throws {
        for each in try cases().cases {
            if let expected = each.latency {
                let found = try latency(each.times, by: each.timing)
                XCTAssertEqual(found, expected, accuracy: 1e-12, each.name)
            } else {
                XCTAssertThrowsError(try latency(each.times, by: each.timing), each.name)
            }
        }
    }

    func testEachRoundLoadsAndLeavesItsFirstInferenceUntimed() throws {
        var now = 0.0
        var loads = 0
        let timing = TimingProtocol(rounds: 3, inferences: 4, trim: 1)
        let times = try timeInferences(
            by: timing,
            clock: { now },
            load: {
                loads += 1
                var runs = 0
                return {
                    runs += 1
                    now += runs == 1 ? 100 : Double(loads)
                }
            })
        XCTAssertEqual(loads, 3)
        XCTAssertEqual(times, [[1, 1, 1, 1], [2, 2, 2, 2], [3, 3, 3, 3]])
    }
}
