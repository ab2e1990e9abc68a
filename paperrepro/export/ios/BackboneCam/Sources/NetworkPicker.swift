import BackboneMath
import CamModel
import SwiftUI

/// Which network, on which processors; loads it when either changes.
struct NetworkPicker: View {
    let model: CamModel
    @State private var name = ""
    @State private var units = ComputeUnits.all

    var body: some View {
        HStack {
            Picker("Network", selection: $name) {
                ForEach(model.networks, id: \.self) { Text($0) }
            }
            Picker("Compute units", selection: $units) {
                ForEach(ComputeUnits.allCases, id: \.self) { Text($0.title) }
            }
        }
        .pickerStyle(.menu)
        .task(id: [name, units.rawValue]) {
            if name.isEmpty {
                name = model.network ?? model.networks.first ?? ""
                units = model.units
            } else if model.network != name || model.units != units {
                await model.choose(name, on: units)
            }
        }
    }
}

extension ComputeUnits {
    var title: String {
        switch self {
        case .all: return "All"
        case .cpu: return "CPU"
        case .gpu: return "CPU and GPU"
        case .neuralEngine: return "CPU and Neural Engine"
        }
    }
}

/// What the network says, and how long it took.
struct AnswerView: View {
    let model: CamModel

    var body: some View {
        VStack(alignment: .leading, spacing: 4) {
            switch model.state {
            case .idle where model.networks.isEmpty:
                Text("No network: put a .mlpackage into the folder Models and build again.")
            case .idle, .loading:
                ProgressView("Loading")
            case .failed(let why):
                Text(why).foregroundStyle(.red)
            case .measuring:
                Text("A measurement is running.")
            case .ready:
                if case .classes(let guesses) = model.answer {
                    ForEach(guesses, id: \.name) { guess in
                        HStack {
                            Text(guess.name)
                            Spacer()
                            Text(guess.probability, format: .percent.precision(.fractionLength(1)))
                        }
                    }
                }
                if case .map(let map, _, let legend) = model.answer {
                    LegendView(map: map, legend: legend)
                }
                if let latency = model.latency {
                    Text("\(latency, format: .number.precision(.fractionLength(1))) ms an image")
                        .font(.footnote.monospacedDigit())
                }
            }
        }
        .padding()
        .frame(maxWidth: .infinity, alignment: .leading)
        .background(.thinMaterial)
    }
}

/// The classes that a map shows, each with its colour and its share of the picture.
struct LegendView: View {
    let map: [Int]
    let legend: Legend

    var body: some View {
        ForEach(legend.shares(of: map).prefix(6), id: \.number) { number, share in
            let channels = legend.colors[number].channels.map { Double($0) / 255 }
            HStack {
                RoundedRectangle(cornerRadius: 3)
                    .fill(Color(red: channels[0], green: channels[1], blue: channels[2]))
                    .frame(width: 16, height: 16)
                Text(legend.names[number])
                Spacer()
                Text(share, format: .percent.precision(.fractionLength(0)))
            }
        }
    }
}

/// A class map in its colours, over the image that it belongs to.
struct MapView: View {
    let answer: Answer?

    var body: some View {
        if case .map(let map, let image, let legend) = answer,
            let drawn = try? overlay(map, on: image, legend: legend, share: 0.5),
            let picture = drawn.cgImage
        {
            Image(decorative: picture, scale: 1).resizable().scaledToFit()
        }
    }
}
