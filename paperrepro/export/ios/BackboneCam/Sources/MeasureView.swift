import BackboneMath
import CamModel
import SwiftUI

/// The papers' protocols, run on the phone, and their results as a file.
struct MeasureView: View {
    let model: CamModel
    @State private var file: URL?

    var body: some View {
        VStack(alignment: .leading) {
            NetworkPicker(model: model)
            switch model.state {
            case .measuring(let share):
                ProgressView("3500 inferences, 52 loads", value: share)
                Button("Stop", role: .cancel) { model.stop() }
            case .failed(let why):
                Text(why).foregroundStyle(.red)
            default:
                Button("Run the papers' protocols") {
                    Task {
                        await model.measure()
                        save()
                    }
                }
                .buttonStyle(.borderedProminent)
                .disabled(model.state != .ready)
                Text("Close other apps, unplug the phone and let it cool down first.")
                    .font(.footnote)
            }
            List(model.measurements.indices, id: \.self) { place in
                MeasurementRow(measurement: model.measurements[place])
            }
            if let file {
                ShareLink("Share the table", item: file)
            }
        }
        .padding()
        .onChange(of: model.state) { _, now in
            if case .measuring = now {
                UIApplication.shared.isIdleTimerDisabled = true
            } else {
                UIApplication.shared.isIdleTimerDisabled = false
            }
        }
    }

    private func save() {
        let url = URL.documentsDirectory.appending(path: "phone.csv")
        try? Data(model.report.utf8).write(to: url, options: .atomic)
        file = model.measurements.isEmpty ? nil : url
    }
}

struct MeasurementRow: View {
    let measurement: PhoneMeasurement

    var body: some View {
        VStack(alignment: .leading) {
            Text("\(measurement.setting.network), \(measurement.setting.computeUnits)")
            Text(
                """
                trimmed mean \(milliseconds(measurement.trimmedMean)), \
                minimum \(milliseconds(measurement.minimum)), \
                p95 \(milliseconds(measurement.percentile95)); \
                phone \(measurement.thermalBefore), then \(measurement.thermalAfter)
                """
            )
            .font(.footnote.monospacedDigit())
        }
    }

    private func milliseconds(_ time: Double) -> String {
        time.formatted(.number.precision(.fractionLength(2))) + " ms"
    }
}
