"use strict";
// Plays one request for each message. The module is a WASI command: its standard input is the request, its standard
// output the answer. It gets no clock, no file and no chance, since all chance comes from the seed.
const NO_SUCH_FILE = 8, NO_SUCH_CALL = 52;
class Exit extends Error {}

async function play(module, request) {
	const input = new TextEncoder().encode(request), written = { 1: [], 2: [] };
	let read = 0, memory = null;
	// Calls `each` with the buffers of a list (address and length each), and writes the sum of what it returns.
	const buffers = (list, count, sum, each) => {
		const view = new DataView(memory.buffer);
		let all = 0;
		for (let at = list; at < list + 8 * count; at += 8) all += each(new Uint8Array(memory.buffer, view.getUint32(at, true), view.getUint32(at + 4, true)));
		view.setUint32(sum, all, true);
		return 0;
	};
	const none = (count, size) => { const view = new DataView(memory.buffer); view.setUint32(count, 0, true); view.setUint32(size, 0, true); return 0; };
	const calls = {
		fd_read: (fd, list, count, sum) => fd !== 0 ? NO_SUCH_FILE : buffers(list, count, sum, buffer => {
			const part = input.subarray(read, read + buffer.length);
			buffer.set(part);
			read += part.length;
			return part.length;
		}),
		fd_write: (fd, list, count, sum) => !written[fd] ? NO_SUCH_FILE : buffers(list, count, sum, buffer => { written[fd].push(buffer.slice()); return buffer.length; }),
		fd_prestat_get: () => NO_SUCH_FILE,
		args_sizes_get: none, args_get: () => 0, environ_sizes_get: none, environ_get: () => 0,
		random_get: () => 0,
		proc_exit: status => { throw new Exit(status); },
	};
	const instance = await WebAssembly.instantiate(module, { wasi_snapshot_preview1: new Proxy(calls, { get: (known, name) => known[name] || (() => NO_SUCH_CALL) }) });
	const text = async parts => new Blob(parts).text();
	memory = instance.exports.memory;
	try {
		instance.exports._start();
	} catch (error) {
		if (!(error instanceof Exit) || error.message !== "0") throw new Error(await text(written[2]) || error.message);
	}
	return text(written[1]);
}

onmessage = async ({ data: { module, request } }) => {
	try {
		postMessage({ answer: await play(module, request) });
	} catch (error) {
		postMessage({ error: error.message });
	}
};
