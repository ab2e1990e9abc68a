import BackboneMath
import Foundation
import Observation

/// What the app shows and does, without a view and without Core ML: those are handed in, so that
/// the tests hand in others.
@available(iOS 17, macOS 14, *)
@MainActor @Observable
public final class CamModel {
    public enum State: Equatable, Sendable {
        case idle
        case loading
        case ready
        case measuring(share: Double)
        case failed(String)
    }

    /// A network that is loaded: an image in, an answer out.
    public typealias Answering = @Sendable (RGBImage) throws -> Answer
    /// Loads a network by name.
    public typealias Loading = @Sendable (String, ComputeUnits) throws -> Answering
    /// Measures a network by the papers' protocols; tells its progress, and ends when that throws.
    public typealias Measuring =
        @Sendable (String, ComputeUnits, (Double) throws -> Void) throws -> PhoneMeasurement

    public let networks: [String]
    public private(set) var state = State.idle
    public private(set) var network: String?
    public private(set) var units = ComputeUnits.all
    public private(set) var answer: Answer?
    /// The times of the latest answers in milliseconds, preparation of the image included.
    public private(set) var times: [Double] = []
    public private(set) var measurements: [PhoneMeasurement] = []

    private let loading: Loading
    private let measuring: Measuring
    private let clock: @Sendable () -> Double
    private var answering: Answering?
    private var busy = false
    private var measurement: Task<PhoneMeasurement, Error>?

    /// How many of the latest answers the latency on screen is the median of.
    static let kept = 30

    public init(
        networks: [String], loading: @escaping Loading, measuring: @escaping Measuring,
        clock: @escaping @Sendable () -> Double
    ) {
        self.networks = networks
        self.loading = loading
        self.measuring = measuring
        self.clock = clock
    }

    /// The median of the latest answers, in milliseconds.
    public var latency: Double? {
        try? percentile(times, 0.5)
    }

    /// All measurements as a file for `paperrepro phone-report`.
    public var report: String {
        csv(measurements)
    }

    /// Loads a network. A later call wins over an earlier one that is still loading.
    public func choose(_ name: String, on units: ComputeUnits) async {
        network = name
        self.units = units
        (answering, answer, times) = (nil, nil, [])
        state = .loading
        let loading = loading
        let result = await Task.detached { Result { try loading(name, units) } }.value
        guard network == name, self.units == units, state == .loading else { return }
        switch result {
        case .success(let loaded):
            answering = loaded
            state = .ready
        case .failure(let error):
            state = .failed("\(name): \(error)")
        }
    }

    /// Asks the network about an image. A frame that comes while it still looks at another is
    /// dropped, and so is one that comes during a measurement.
    ///
    /// - Returns: whether the image was looked at.
    @discardableResult
    public func see(_ image: RGBImage) async -> Bool {
        guard state == .ready, !busy, let answering else { return false }
        let asked = (network, units)
        busy = true
        defer { busy = false }
        let clock = clock
        let result = await Task.detached {
            let start = clock()
            return Result { (try answering(image), clock() - start) }
        }.value
        guard state == .ready, asked == (network, units) else { return false }
        switch result {
        case .success(let (found, time)):
            answer = found
            times = (times + [time]).suffix(Self.kept)
        case .failure(let error):
            state = .failed("\(error)")
        }
        return true
    }

    /// Runs the papers' protocols on the chosen network and keeps what they find.
    public func measure() async {
        guard state == .ready, let network else { return }
        let (measuring, units) = (measuring, units)
        state = .measuring(share: 0)
        let task = Task.detached { [weak self] in
            var told = 0.0
            return try measuring(network, units) { share in
                try Task.checkCancellation()
                guard share - told >= 0.01 || share >= 1 else { return }
                told = share
                Task { @MainActor [weak self] in self?.progress(share) }
            }
        }
        measurement = task
        let result = await task.result
        measurement = nil
        switch result {
        case .success(let found):
            measurements.append(found)
            state = .ready
        case .failure(is CancellationError):
            state = .ready
        case .failure(let error):
            state = .failed("\(network): \(error)")
        }
    }

    /// Ends a measurement; what it has measured so far is dropped.
    public func stop() {
        measurement?.cancel()
    }

    private func progress(_ share: Double) {
        if case .measuring(let before) = state, share > before {
            state = .measuring(share: share)
        }
    }
}
