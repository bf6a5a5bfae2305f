// Trains one network. Messages to it: load, start, run, pause, step, predict. The glue of wasm-bindgen stands before this.

let loading = null;
let trainer = null;
/** The number of the training, which is in every message, because messages of one before may still be on their way. */
let run = 0;
let running = false;
/** Whether the training has ended, or its loss is NaN or infinite. */
let ended = false;
/** Whether a message to go on is on its way. */
let scheduled = false;
let measuredAt = 0;
const channel = new MessageChannel();

const send = (message) => postMessage({ ...message, run });

/** Reports an error. A program that has panicked cannot be used again; one that ends without a message got no memory. */
function fail(error) {
    running = false;
    ended = true;
    const isFatal = error instanceof WebAssembly.RuntimeError;
    const reason = isFatal ? wasm_bindgen.panic_message() || "out of memory" : error.message;
    send({ type: "failed", reason });
}

/** Takes one step and reports it. Measures inside the network now and then, because that takes longer than a step. */
function step(measure) {
    const due = measure || performance.now() - measuredAt > 150;
    // Before the step, as gradients are.
    const activations = due ? Array.from(trainer.activations()) : null;
    const done = JSON.parse(trainer.step(due));
    if (due) measuredAt = performance.now();
    // JSON has no NaN and no infinity.
    const diverged = done.loss === null;
    const error = done.epoch_ended && !diverged ? trainer.training_error() : null;
    ended = done.ended || diverged;
    running = running && !ended;
    send({ type: "step", step: done.step, loss: done.loss, gradients: done.gradients, activations, error, ended: done.ended, diverged });
}

function schedule() {
    if (running && !scheduled) {
        scheduled = true;
        channel.port2.postMessage(0);
    }
}

channel.port1.onmessage = () => {
    scheduled = false;
    if (!running) return;
    try {
        step(false);
        schedule();
    } catch (error) {
        fail(error);
    }
};

onmessage = async ({ data }) => {
    try {
        if (data.type === "load") loading = wasm_bindgen({ module_or_path: data.wasm });
        await loading;
        if (data.type === "start") {
            running = ended = false;
            run = data.run;
            trainer?.free();
            trainer = null;
            trainer = new wasm_bindgen.Trainer(JSON.stringify(data.settings));
            send({ type: "started", steps: trainer.steps() });
        } else if (data.type === "predict" && trainer) {
            send({ type: "answer", probabilities: Array.from(trainer.predict(Float32Array.from(data.pixels))) });
        } else if (data.type === "pause") {
            running = false;
        } else if (trainer && !ended && data.type === "run") {
            running = true;
            schedule();
        } else if (trainer && !ended && data.type === "step") {
            running = false;
            step(true);
        }
    } catch (error) {
        fail(error);
    }
};
