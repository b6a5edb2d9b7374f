"""H.264 files of a film: written frame by frame, joined without decoding, whole or not there.

Frames are 8-bit RGB, `[video_frame height width 3]`. Files are MP4 with the index in front, 4:2:0,
BT.709. One thread encodes, and nothing of the machine or the hour goes into a file: the same frames
are the same pictures when read back (of one build of the encoder), in very nearly the same bytes.
"""

import contextlib
import pathlib
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction

import av
import av.container
import av.error
import numpy as np
from av.video.reformatter import ColorRange, Colorspace
from av.video.stream import VideoStream

from shotstream_jax.files import atomic_file
from shotstream_jax.typing import HostFrames, UInt8

_Encode = Callable[[av.VideoFrame | None], None]
"""Takes the next frame, or `None` at the end."""


# The index in front lets a browser play before the whole file is there; bitexact leaves out the
# encoder's version and the hour of writing.
_CONTAINER = {"movflags": "+faststart", "fflags": "+bitexact"}
_LARGEST_CRF = 51  # of 8-bit H.264; 0 is lossless, in a profile that browsers do not play
_BT709 = 1
"""Code point of BT.709 primaries, transfer and matrix (ITU-T H.273)."""


class Mp4Writer:
    """Writes a film as it comes; the file appears under its name when the block ends well.

    with Mp4Writer(path, fps=16, size=(480, 832)) as film:
        for frames in chunks:
            film.write(frames)
    """

    # crf 18 is where x264's artefacts stop being visible: films are looked at, scored and cut
    # again.
    def __init__(self, path: pathlib.Path | str, *, fps: int, size: tuple[int, int], crf: int = 18):
        """Check the format; nothing is written yet.

        Args:
          path: the file to make, in a folder that exists.
          fps: video frames per second.
          size: height and width in pixels, both even.
          crf: quality of the encoder, 1 (best) to 51.

        Raises:
          ValueError: an odd or empty size, a rate below 1, a quality out of range.
        """
        height, width = size
        if min(size) < 2 or height % 2 or width % 2:
            raise ValueError(
                f"A film of {height} x {width} (height x width): H.264 stores colour for 2 x 2 "
                "pixels, make both even."
            )
        if fps < 1 or not 1 <= crf <= _LARGEST_CRF:
            raise ValueError(
                f"fps {fps} must be 1 or more, and crf {crf} from 1 (best) to {_LARGEST_CRF}."
            )
        self.path = pathlib.Path(path)
        self.fps = fps
        self.size = size
        self.crf = crf
        self.frames = 0
        self._encoding: contextlib.AbstractContextManager[_Encode] | None = None
        self._encode: _Encode | None = None

    def __enter__(self) -> "Mp4Writer":
        self._encoding = self._encoder()
        self._encode = self._encoding.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        encoding, self._encoding, self._encode = self._encoding, None, None
        if encoding is not None:
            encoding.__exit__(*error)  # type: ignore[arg-type]

    def write(self, frames: HostFrames) -> None:
        """Append frames.

        Raises:
          ValueError: frames of another size than the film's, or a film that is not open.
          OSError: no room.
        """
        if self._encode is None:
            raise ValueError(f"{self.path} is not open; write inside its `with` block.")
        if frames.shape[1:3] != self.size:
            raise ValueError(
                f"{self.path} is {self.size[0]} x {self.size[1]} (height x width) and cannot take "
                f"frames of {frames.shape[1]} x {frames.shape[2]}; resize them."
            )
        for pixels in frames:
            self._encode(_to_yuv(pixels, self.frames, self.fps))
            self.frames += 1

    @contextlib.contextmanager
    def _encoder(self) -> Iterator[_Encode]:
        with atomic_file(self.path) as temporary:
            with _new_mp4(temporary) as container:
                stream = container.add_stream("libx264", rate=self.fps)
                stream.height, stream.width = self.size
                # The one sampling that all players and hardware decoders take.
                stream.pix_fmt = "yuv420p"
                # Without B-frames, packets are in the order of the film, and films join exactly.
                # The distance of key frames stays x264's (250): shots are shorter and start with
                # one.
                stream.options = {"crf": str(self.crf), "bf": "0"}
                # Threads cut pictures into slices or delay frames: other bytes on other machines.
                stream.thread_count = 1
                _tag_colours(stream)

                def encode(frame: av.VideoFrame | None) -> None:
                    container.mux(stream.encode(frame))

                yield encode
                if self.frames == 0:
                    raise ValueError(f"No frames were written to {self.path}; a film has some.")
                encode(None)
            _check_index(temporary, self.path, self.frames)


def concatenate(paths: Sequence[pathlib.Path | str], path: pathlib.Path | str) -> None:
    """Join films end to end without decoding them, in constant memory.

    Raises:
      ValueError: no films, a file that is none, or films of different formats.
      OSError: no room.
    """
    files = [pathlib.Path(file) for file in paths]
    path = pathlib.Path(path)
    if not files:
        raise ValueError(f"Nothing to join to {path}; give one film or more.")
    frames = 0
    with atomic_file(path, needed=sum(file.stat().st_size for file in files)) as temporary:
        with _new_mp4(temporary) as container, _open(files[0]) as first:
            model = first.streams.video[0]
            output = container.add_stream_from_template(model)
            # Each film's time stamps count from 0: they are moved behind the film before.
            start = 0
            for file in files:
                with _open(file) as part:
                    stream = part.streams.video[0]
                    _refuse_other_format(files[0], model, file, stream)
                    for packet in part.demux(stream):
                        if packet.pts is None or packet.dts is None:
                            continue  # the demuxer's sign that the file has ended
                        packet.pts += start
                        packet.dts += start
                        packet.stream = output
                        container.mux(packet)
                    start += stream.duration or 0
                    frames += stream.frames
        _check_index(temporary, path, frames)


def read_video(path: pathlib.Path | str) -> HostFrames:
    """All frames of a film.

    Raises:
      ValueError: a file that is not a film.
    """
    with _open(pathlib.Path(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def _new_mp4(path: pathlib.Path) -> av.container.OutputContainer:
    return av.open(_local(path), "w", format="mp4", options=_CONTAINER)


def _local(path: pathlib.Path) -> str:
    # Else what stands before a colon is taken for a protocol, as in a folder named by the hour.
    return f"file:{path}"


@contextlib.contextmanager
def _open(path: pathlib.Path) -> Iterator[av.container.InputContainer]:
    try:
        container = av.open(_local(path))
    except av.error.InvalidDataError as error:
        raise ValueError(f"{path} is not a film that can be read; film it again.") from error
    with container:
        if not container.streams.video:
            raise ValueError(f"{path} has sound or data but no pictures; give a film.")
        yield container


def _to_yuv(pixels: UInt8[np.ndarray, "height width 3"], index: int, fps: int) -> av.VideoFrame:
    # BT.709 whatever the size, in limited range, as the stream's tags say. The scaler's own default
    # is BT.601, whose reds and greens players would then show shifted.
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24").reformat(
        format="yuv420p",
        src_colorspace=Colorspace.ITU709,
        dst_colorspace=Colorspace.ITU709,
        src_color_range=ColorRange.JPEG,
        dst_color_range=ColorRange.MPEG,
    )
    frame.pts, frame.time_base = index, Fraction(1, fps)
    return frame


def _tag_colours(stream: VideoStream) -> None:
    # Without tags a player guesses by the size of the picture, wrongly for small films.
    stream.codec_context.colorspace = _BT709
    stream.codec_context.color_primaries = _BT709
    stream.codec_context.color_trc = _BT709
    stream.codec_context.color_range = ColorRange.MPEG


def _check_index(temporary: pathlib.Path, path: pathlib.Path, frames: int) -> None:
    """Raises: OSError: the file does not say that it holds `frames` frames."""
    with _open(temporary) as container:
        found = container.streams.video[0].frames
    if found != frames:
        raise OSError(f"{path}: {found} of {frames} frames reached the disk; write it again.")


def _refuse_other_format(
    first: pathlib.Path, model: VideoStream, file: pathlib.Path, stream: VideoStream
) -> None:
    # What a player reads once, from the first film's header, must hold for all that follow.
    for name, one, other in (
        ("size", (model.height, model.width), (stream.height, stream.width)),
        ("rate", model.average_rate, stream.average_rate),
        ("codec", model.codec_context.name, stream.codec_context.name),
    ):
        if one != other:
            raise ValueError(
                f"{first} and {file} differ in {name}, {one} and {other}; write both alike."
            )
    # Extradata holds the parameter sets (SPS, PPS) that packets are decoded by.
    if model.codec_context.extradata != stream.codec_context.extradata:
        raise ValueError(f"{first} and {file} were encoded with other settings; write both alike.")
