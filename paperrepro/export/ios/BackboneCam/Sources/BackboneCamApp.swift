import BackboneCoreML
import BackboneMath
import CamModel
import SwiftUI

@main
struct BackboneCamApp: App {
    @State private var model = CamModel(
        networks: packages.keys.sorted(),
        loading: { name, units in
            let network = try Network(try package(name), on: units)
            return { try network.answer($0) }
        },
        measuring: { name, units, progress in
            try measure(
                try package(name), on: units,
                date: String(Date().formatted(.iso8601).prefix(10)), progress: progress)
        },
        clock: { Double(DispatchTime.now().uptimeNanoseconds) / 1e6 })

    var body: some Scene {
        WindowGroup {
            TabView {
                LiveView(model: model).tabItem { Label("Camera", systemImage: "camera") }
                PhotoView(model: model).tabItem { Label("Photo", systemImage: "photo") }
                MeasureView(model: model).tabItem { Label("Measure", systemImage: "stopwatch") }
            }
        }
    }
}

/// Each `.mlpackage` of the folder Models, as Xcode compiled it into the app.
private let packages: [String: URL] = {
    let found = Bundle.main.urls(forResourcesWithExtension: "mlmodelc", subdirectory: nil) ?? []
    return Dictionary(
        found.map { ($0.deletingPathExtension().lastPathComponent, $0) },
        uniquingKeysWith: { first, _ in first })
}()

private func package(_ name: String) throws -> URL {
    guard let url = packages[name] else {
        throw BackboneError("no network \(name) in the app; put \(name).mlpackage into Models")
    }
    return url
}
