// swift-tools-version:5.9
import PackageDescription

let package = Package(
    name: "PhoneLatency",
    platforms: [.iOS(.v16), .macOS(.v13)],
    products: [
        .library(name: "CoreMLLatency", targets: ["LatencyProtocol", "CoreMLLatency"]),
    ],
    targets: [
        .target(name: "LatencyProtocol"),
        .target(name: "CoreMLLatency", dependencies: ["LatencyProtocol"]),
        .executableTarget(name: "bench", dependencies: ["LatencyProtocol", "CoreMLLatency"]),
        .testTarget(
            name: "LatencyProtocolTests",
            dependencies: ["LatencyProtocol"],
            resources: [.copy("cases.json")]
        ),
    ]
)
