// Trains one network. Messages to it: start, run, pause, step, predict. The glue of wasm-bindgen stands before this.

let trainer = null;
let running = false;
let failed = false;
/** Whether a message to go on is on its way. */
let scheduled = false;
const channel = new MessageChannel();

const send = (message) => postMessage(message);

/** The message of an error. A panic has one of its own. A program that ends without one could not get memory. */
function reason(error) {
    if (!(error instanceof WebAssembly.RuntimeError)) return error.message;
    return wasm_bindgen.panic_message() || "out of memory";
}

function fail(error) {
    running = false;
    failed = true;
    send({ type: "failed", reason: reason(error) });
}

/** Takes one step and reports it. Measures inside the network now and then, because that takes longer than a step. */
let measuredAt = 0;
function step(measure) {
    const now = performance.now();
    const due = measure || now - measuredAt > 150;
    const done = JSON.parse(trainer.step(due));
    if (!Number.isFinite(done.loss)) {
        running = false;
        failed = true;
        // JSON has no NaN and no infinity.
        send({ type: "diverged", step: done.step });
        return;
    }
    done.type = "step";
    if (due) {
        measuredAt = now;
        done.activations = Array.from(trainer.activations());
    }
    if (done.epoch_ended) done.trainingError = trainer.training_error();
    if (done.ended) running = false;
    send(done);
}

function schedule() {
    if (running && !scheduled) {
        scheduled = true;
        channel.port2.postMessage(0);
    }
}

channel.port1.onmessage = () => {
    scheduled = false;
    if (!running || failed) return;
    try {
        step(false);
        schedule();
    } catch (error) {
        fail(error);
    }
};

onmessage = async ({ data }) => {
    try {
        if (data.type === "load") {
            await wasm_bindgen({ module_or_path: data.wasm });
            send({ type: "loaded" });
        } else if (data.type === "start") {
            running = false;
            failed = false;
            if (trainer) trainer.free();
            trainer = null;
            trainer = new wasm_bindgen.Trainer(JSON.stringify(data.settings));
            send({ type: "started", steps: trainer.steps(), run: data.run });
        } else if (failed || !trainer) {
            return;
        } else if (data.type === "run") {
            running = true;
            schedule();
        } else if (data.type === "pause") {
            running = false;
        } else if (data.type === "step") {
            running = false;
            step(true);
        } else if (data.type === "predict") {
            send({ type: "answer", probabilities: Array.from(trainer.predict(Float32Array.from(data.pixels))) });
        }
    } catch (error) {
        fail(error);
    }
};
