import Foundation

/// The value below which a share of the times lies, interpolated between neighbours as NumPy does.
///
/// - Parameters:
///   - share: 0 to 1; 0.5 is the median.
public func percentile(_ times: [Double], _ share: Double) throws -> Double {
    guard !times.isEmpty, times.allSatisfy({ $0.isFinite && $0 >= 0 }) else {
        throw TimingError("no times, or one that is negative or no number")
    }
    guard (0...1).contains(share) else {
        throw TimingError("percentile \(share); a share lies between 0 and 1")
    }
    let sorted = times.sorted()
    let place = share * Double(sorted.count - 1)
    let below = Int(place)
    let above = min(below + 1, sorted.count - 1)
    return sorted[below] + (place - Double(below)) * (sorted[above] - sorted[below])
}

/// Where and when something was measured.
public struct Setting: Equatable, Sendable {
    public let network: String
    public let megabytes: Double
    public let device: String
    public let system: String
    public let computeUnits: String
    public let date: String

    public init(
        network: String, megabytes: Double, device: String, system: String, computeUnits: String,
        date: String
    ) {
        self.network = network
        self.megabytes = megabytes
        self.device = device
        self.system = system
        self.computeUnits = computeUnits
        self.date = date
    }
}

/// One network on one phone: a row of the file that `paperrepro phone-report` reads.
///
/// Times are milliseconds. `trimmedMean` and `minimum` are the two protocols' latencies; `median`
/// and `percentile95` are of all inferences of the trimmed mean's rounds.
public struct PhoneMeasurement: Equatable, Sendable {
    public let setting: Setting
    public let load: Double
    public let firstInference: Double
    public let median: Double
    public let percentile95: Double
    public let minimum: Double
    public let trimmedMean: Double
    public let thermalBefore: String
    public let thermalAfter: String

    /// Loads a network, runs it once, and times it by both protocols, the minimum first: it asks
    /// for a phone that is cool.
    ///
    /// - Parameters:
    ///   - clock: the present time in milliseconds.
    ///   - thermalState: how warm the phone says it is.
    ///   - progress: told which share is done; what it throws ends the measurement.
    ///   - load: loads the network and returns a function that runs it once.
    public init(
        of setting: Setting,
        clock: () -> Double,
        thermalState: () -> String,
        progress: (Double) throws -> Void = { _ in },
        load: () throws -> () throws -> Void
    ) throws {
        self.setting = setting
        thermalBefore = thermalState()
        let start = clock()
        let infer = try load()
        let loaded = clock()
        try infer()
        let first = clock()
        self.load = loaded - start
        firstInference = first - loaded
        let single = try timeInferences(
            by: .minimum, clock: clock, progress: { try progress(0.3 * $0) }, load: load)
        let rounds = try timeInferences(
            by: .trimmedMean, clock: clock, progress: { try progress(0.3 + 0.7 * $0) }, load: load)
        minimum = try latency(single, by: .minimum)
        trimmedMean = try latency(rounds, by: .trimmedMean)
        median = try percentile(Array(rounds.joined()), 0.5)
        percentile95 = try percentile(Array(rounds.joined()), 0.95)
        thermalAfter = thermalState()
    }

    public static let columns = [
        "network", "megabytes", "device", "system", "compute_units", "load_ms", "first_ms",
        "p50_ms", "p95_ms", "minimum_ms", "trimmed_mean_ms", "thermal_before", "thermal_after",
        "date",
    ]

    public var row: [String] {
        let times = [load, firstInference, median, percentile95, minimum, trimmedMean]
        return [
            setting.network, decimal(setting.megabytes), setting.device, setting.system,
            setting.computeUnits,
        ] + times.map(decimal) + [thermalBefore, thermalAfter, setting.date]
    }
}

func decimal(_ value: Double) -> String {
    String(format: "%.4f", locale: Locale(identifier: "en_US_POSIX"), value)
}

/// Measurements as comma-separated values (RFC 4180), with a first line of names.
public func csv(_ measurements: [PhoneMeasurement]) -> String {
    ([PhoneMeasurement.columns] + measurements.map(\.row))
        .map { $0.map(quoted).joined(separator: ",") + "\r\n" }
        .joined()
}

func quoted(_ field: String) -> String {
    let special: Set<Unicode.Scalar> = [",", "\"", "\r", "\n"]
    guard field.unicodeScalars.contains(where: special.contains) else { return field }
    return "\"" + field.replacingOccurrences(of: "\"", with: "\"\"") + "\""
}
