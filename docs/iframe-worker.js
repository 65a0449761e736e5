// Search when the pages are opened from the disk. It runs in a worker, which browsers start from no file: a frame takes its place.
// The name tells Material's `offline` plugin that this is here; else its pages would fetch the like from another host.
if (location.protocol === "file:") {
  window.IFrameWorker = class extends EventTarget { // Material's worker asks for this name
    constructor(url) {
      super();
      const frame = document.body.appendChild(document.createElement("iframe"));
      frame.hidden = true;
      const worker = (this.worker = frame.contentWindow);
      worker.postMessage = (data) => this.dispatchEvent(new MessageEvent("message", { data }));
      worker.importScripts = (...urls) => urls.reduce((done, each) => done.then(() => this.load(each)), Promise.resolve());
      this.ready = this.load(url);
    }

    load(url) {
      return new Promise((resolve, reject) => {
        const script = this.worker.document.createElement("script");
        Object.assign(script, { src: url, onload: resolve, onerror: reject });
        this.worker.document.body.append(script);
      });
    }

    postMessage(data) {
      this.ready.then(() => this.worker.dispatchEvent(new MessageEvent("message", { data })));
    }
  };
  window.Worker = window.IFrameWorker;
}
