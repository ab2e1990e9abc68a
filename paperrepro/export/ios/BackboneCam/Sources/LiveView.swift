import BackboneCoreML
import CamModel
import SwiftUI

/// The camera, with what the network says of each frame that it has time for.
struct LiveView: View {
    let model: CamModel
    @State private var camera = Camera()
    @State private var problem: String?

    var body: some View {
        ZStack(alignment: .bottom) {
            CameraPreview(session: camera.session).ignoresSafeArea()
            MapView(answer: model.answer).frame(maxHeight: .infinity)
            VStack {
                NetworkPicker(model: model).background(.thinMaterial)
                Spacer()
                if let problem {
                    Text(problem).padding().background(.thinMaterial)
                }
                AnswerView(model: model)
            }
        }
        .task { await watch() }
    }

    /// Goes on until the tab is left.
    private func watch() async {
        do {
            for await frame in try await camera.frames() {
                await model.see(try rgbImage(frame.buffer))
            }
        } catch {
            problem = "\(error)"
        }
    }
}
