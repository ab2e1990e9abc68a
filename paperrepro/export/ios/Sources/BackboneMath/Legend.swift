import Foundation

/// The names and colours of a segmenter's classes.
public struct Legend: Equatable, Sendable {
    public let names: [String]
    public let colors: [Color]

    public struct Color: Equatable, Sendable {
        /// Red, green and blue.
        public let channels: [UInt8]
    }

    /// Numbers for names, and the colours of Pascal VOC: the bits of a class's number, three by
    /// three, become the high bits of red, green and blue. 0 is black.
    public init(classes: Int) {
        names = (0..<classes).map { "class \($0)" }
        colors = (0..<classes).map { number in
            var channels: [UInt8] = [0, 0, 0]
            for place in 0..<8 {
                for channel in 0..<3 where (number >> (3 * place + channel)) & 1 == 1 {
                    channels[channel] |= 0x80 >> UInt8(place)
                }
            }
            return Color(channels: channels)
        }
    }

    /// - Parameters:
    ///   - preview: what a package's metadata hold for Xcode's preview of a segmenter: JSON with
    ///     the lists `labels` and `colors`, a colour as #rrggbb. `paperrepro export` writes it.
    public init(preview: String) throws {
        struct Parameters: Decodable {
            let labels: [String]
            let colors: [String]
        }
        let found: Parameters
        do {
            found = try JSONDecoder().decode(Parameters.self, from: Data(preview.utf8))
        } catch {
            throw BackboneError("the classes in the metadata cannot be read: \(error)")
        }
        guard found.labels.count == found.colors.count, !found.labels.isEmpty else {
            throw BackboneError(
                "\(found.colors.count) colours for \(found.labels.count) classes in the metadata")
        }
        names = found.labels
        colors = try found.colors.map { text in
            guard text.count == 7, text.first == "#",
                let number = UInt32(text.dropFirst(), radix: 16)
            else {
                throw BackboneError("\(text) is no colour #rrggbb")
            }
            return Color(channels: [16, 8, 0].map { UInt8(number >> $0 & 0xff) })
        }
    }

    /// The classes of a map with the share of its pixels that each has, the largest share first.
    public func shares(of map: [Int]) -> [(number: Int, share: Double)] {
        let counts = Dictionary(grouping: map.filter(names.indices.contains), by: { $0 })
            .mapValues(\.count)
        return counts.sorted { (-$0.value, $0.key) < (-$1.value, $1.key) }
            .map { ($0.key, Double($0.value) / Double(map.count)) }
    }
}
