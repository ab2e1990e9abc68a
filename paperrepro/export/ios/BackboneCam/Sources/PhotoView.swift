import BackboneMath
import CamModel
import PhotosUI
import SwiftUI

/// One photograph of the library: prepared exactly as `paperrepro evaluate` does.
struct PhotoView: View {
    let model: CamModel
    @State private var item: PhotosPickerItem?
    @State private var photo: UIImage?
    @State private var problem: String?

    var body: some View {
        VStack {
            NetworkPicker(model: model)
            if let photo {
                Image(uiImage: photo).resizable().scaledToFit()
            }
            MapView(answer: model.answer)
            Spacer()
            PhotosPicker("Choose a photograph", selection: $item, matching: .images)
                .buttonStyle(.borderedProminent)
            if let problem {
                Text(problem).foregroundStyle(.red)
            }
            AnswerView(model: model)
        }
        .task(id: item) { await look() }
        .onChange(of: model.state) { before, now in
            if before == .loading, now == .ready {
                Task { await look() }
            }
        }
    }

    private func look() async {
        guard let item else { return }
        do {
            guard let data = try await item.loadTransferable(type: Data.self),
                let loaded = UIImage(data: data)
            else {
                throw BackboneError("this is no photograph that can be read")
            }
            (photo, problem) = (loaded, nil)
            await model.see(try RGBImage(loaded))
        } catch {
            problem = "\(error)"
        }
    }
}
