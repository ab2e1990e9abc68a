/// How the papers turn many timed inferences into one latency. `paperrepro/export/protocols.py` is
/// the same in Python; both are held to `Tests/BackboneMathTests/cases.json`.

/// How many inferences are timed, and what becomes of the times.
public struct TimingProtocol: Codable, Equatable, Sendable {
    /// How often the model is loaded anew.
    public let rounds: Int
    /// How many inferences each round times, after one that it does not time.
    public let inferences: Int
    /// How many of a round's fastest and of its slowest inferences are dropped before the mean;
    /// nil: no mean is taken but the minimum.
    public let trim: Int?

    public init(rounds: Int, inferences: Int, trim: Int?) {
        self.rounds = rounds
        self.inferences = inferences
        self.trim = trim
    }

    /// RapidNet, Section 4.1, and MobileViGv2, Section 5.1.
    public static let trimmedMean = TimingProtocol(rounds: 50, inferences: 50, trim: 10)
    /// MobileOne, Section 3.5.
    public static let minimum = TimingProtocol(rounds: 1, inferences: 1000, trim: nil)
}

/// Times that a protocol cannot have taken.
public struct TimingError: Error, CustomStringConvertible {
    public let description: String

    public init(_ description: String) {
        self.description = description
    }
}

/// The time of each inference, a list per round, in the clock's unit.
///
/// - Parameters:
///   - clock: the present time.
///   - progress: told, between two inferences, which share of all is done; what it throws ends the
///     timing.
///   - load: loads the model and returns a function that runs it once.
public func timeInferences(
    by timing: TimingProtocol,
    clock: () -> Double,
    progress: (Double) throws -> Void = { _ in },
    load: () throws -> () throws -> Void
) throws -> [[Double]] {
    var times: [[Double]] = []
    let all = Double(timing.rounds * timing.inferences)
    for past in 0..<timing.rounds {
        let infer = try load()
        try infer()
        var round: [Double] = []
        round.reserveCapacity(timing.inferences)
        for _ in 0..<timing.inferences {
            let start = clock()
            try infer()
            round.append(clock() - start)
            try progress(Double(past * timing.inferences + round.count) / all)
        }
        times.append(round)
    }
    return times
}

/// The one number that a protocol makes of its times: the mean over the rounds of each round's
/// trimmed mean, or the minimum of all.
public func latency(_ times: [[Double]], by timing: TimingProtocol) throws -> Double {
    try check(times, timing)
    guard let trim = timing.trim else {
        return times.joined().min()!
    }
    let means = times.map { mean($0.sorted()[trim..<($0.count - trim)]) }
    return mean(means[...])
}

func mean(_ values: ArraySlice<Double>) -> Double {
    values.reduce(0, +) / Double(values.count)
}

func check(_ times: [[Double]], _ timing: TimingProtocol) throws {
    if let trim = timing.trim, trim < 0 || 2 * trim >= timing.inferences {
        throw TimingError("trim \(trim) of \(timing.inferences) inferences; it must leave one")
    }
    guard times.count == timing.rounds, timing.rounds > 0 else {
        throw TimingError("\(times.count) rounds; the protocol has \(timing.rounds)")
    }
    for round in times {
        guard round.count == timing.inferences, timing.inferences > 0 else {
            throw TimingError(
                "\(round.count) inferences; the protocol has \(timing.inferences)")
        }
        guard round.allSatisfy({ $0.isFinite && $0 >= 0 }) else {
            throw TimingError("a time is negative or no number")
        }
    }
}

/// The processors that the system may use for a network.
public enum ComputeUnits: String, CaseIterable, Sendable {
    case all
    case cpu
    case gpu
    case neuralEngine = "ane"
}
