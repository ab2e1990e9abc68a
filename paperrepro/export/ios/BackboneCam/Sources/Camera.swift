import AVFoundation
import BackboneMath
import SwiftUI

/// A frame on its way from the camera's queue.
struct Frame: @unchecked Sendable {
    let buffer: CVPixelBuffer
}

/// The back camera at 640 x 480: as much as a network of 224 pixels can use.
final class Camera: NSObject, AVCaptureVideoDataOutputSampleBufferDelegate, @unchecked Sendable {
    let session = AVCaptureSession()
    private let queue = DispatchQueue(label: "camera")
    private var continuation: AsyncStream<Frame>.Continuation?

    /// The frames as they come; only the newest waits. The camera stops when the loop over them
    /// ends.
    ///
    /// - Throws: the user refused the camera, or there is none, as in the simulator.
    func frames() async throws -> AsyncStream<Frame> {
        guard await AVCaptureDevice.requestAccess(for: .video) else {
            throw BackboneError("The camera is not allowed: Settings, BackboneCam, Camera.")
        }
        if session.inputs.isEmpty {
            try configure()
        }
        return AsyncStream(bufferingPolicy: .bufferingNewest(1)) { continuation in
            queue.async {
                self.continuation = continuation
                self.session.startRunning()
            }
            continuation.onTermination = { _ in
                self.queue.async { self.session.stopRunning() }
            }
        }
    }

    private func configure() throws {
        guard
            let device = AVCaptureDevice.default(
                .builtInWideAngleCamera, for: .video, position: .back)
        else {
            throw BackboneError("There is no camera here; the tab Photo works without.")
        }
        let input = try AVCaptureDeviceInput(device: device)
        let output = AVCaptureVideoDataOutput()
        output.videoSettings = [
            kCVPixelBufferPixelFormatTypeKey as String: kCVPixelFormatType_32BGRA
        ]
        output.alwaysDiscardsLateVideoFrames = true
        output.setSampleBufferDelegate(self, queue: queue)
        session.beginConfiguration()
        defer { session.commitConfiguration() }
        session.sessionPreset = .vga640x480
        guard session.canAddInput(input), session.canAddOutput(output) else {
            throw BackboneError("The camera gives no 640 x 480 pixels.")
        }
        session.addInput(input)
        session.addOutput(output)
        if let connection = output.connection(with: .video),
            connection.isVideoRotationAngleSupported(90)
        {
            connection.videoRotationAngle = 90
        }
    }

    func captureOutput(
        _ output: AVCaptureOutput, didOutput sample: CMSampleBuffer,
        from connection: AVCaptureConnection
    ) {
        if let buffer = CMSampleBufferGetImageBuffer(sample) {
            continuation?.yield(Frame(buffer: buffer))
        }
    }
}

/// What the camera sees.
struct CameraPreview: UIViewRepresentable {
    let session: AVCaptureSession

    final class Preview: UIView {
        override class var layerClass: AnyClass { AVCaptureVideoPreviewLayer.self }
    }

    func makeUIView(context: Context) -> Preview {
        let view = Preview()
        if let layer = view.layer as? AVCaptureVideoPreviewLayer {
            layer.session = session
            layer.videoGravity = .resizeAspectFill
        }
        return view
    }

    func updateUIView(_ view: Preview, context: Context) {}
}
