// A sound from the microphone, as a WAV file: what a browser records itself is of a kind that few programs read.

export async function recorded() {
  if (!navigator.mediaDevices?.getUserMedia) throw new Error("This browser doesn't record here: pages may do so on this machine's own address, or by HTTPS.");
  let stream;
  try { stream = await navigator.mediaDevices.getUserMedia({ audio: true }); }
  catch { throw new Error("The microphone can't be used: it isn't there, or wasn't allowed."); }
  const recorder = new MediaRecorder(stream), pieces = [];
  recorder.addEventListener("dataavailable", event => pieces.push(event.data));
  const ended = new Promise(done => recorder.addEventListener("stop", done, { once: true }));
  recorder.start();
  return async () => {
    recorder.stop();
    await ended;
    for (const track of stream.getTracks()) track.stop();
    const context = new AudioContext(), sound = await context.decodeAudioData(await new Blob(pieces).arrayBuffer());
    await context.close();
    return wave(sound.getChannelData(0), sound.sampleRate);
  };
}

function wave(samples, rate) {
  const data = new DataView(new ArrayBuffer(44 + 2 * samples.length)), word = (at, text) => [...text].forEach((sign, number) => data.setUint8(at + number, sign.charCodeAt(0)));
  word(0, "RIFF"); data.setUint32(4, 36 + 2 * samples.length, true); word(8, "WAVEfmt ");
  data.setUint32(16, 16, true); data.setUint16(20, 1, true); data.setUint16(22, 1, true);
  data.setUint32(24, rate, true); data.setUint32(28, 2 * rate, true); data.setUint16(32, 2, true); data.setUint16(34, 16, true);
  word(36, "data"); data.setUint32(40, 2 * samples.length, true);
  samples.forEach((one, number) => data.setInt16(44 + 2 * number, Math.max(-1, Math.min(1, one)) * 32767, true));
  return new Blob([data], { type: "audio/wav" });
}
