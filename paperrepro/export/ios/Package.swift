// swift-tools-version:5.9
import PackageDescription

let package = Package(
    name: "Backbone",
    platforms: [.iOS(.v16), .macOS(.v13)],
    products: [
        .library(name: "Backbone", targets: ["BackboneMath", "BackboneCoreML"]),
        .library(name: "CamModel", targets: ["CamModel"]),
    ],
    targets: [
        .target(name: "BackboneMath"),
        .target(name: "BackboneCoreML", dependencies: ["BackboneMath"]),
        .target(name: "CamModel", dependencies: ["BackboneMath"]),
        .executableTarget(name: "bench", dependencies: ["BackboneMath", "BackboneCoreML"]),
        .testTarget(
            name: "BackboneMathTests",
            dependencies: ["BackboneMath"],
            resources: [.copy("cases.json"), .copy("values.json")]
        ),
        .testTarget(name: "CamModelTests", dependencies: ["BackboneMath", "CamModel"]),
    ]
)
