"use strict";
// The data of a page, and the state of both ends at any of its events. Nothing here touches the document.

// Rows, by their first element. Times are nanoseconds from the beginning of the connection.
//   ["p", at, from, number, flags, seq, length, ack, window, options, fates, bits, to]   a segment; `from`: 0, 1, or -1
//   ["i", at, from, number, text, fates, to]   another packet
//   ["s", at, end, state before, state]    ["c", at, end, text] a call    ["n", at, end or -1, text] a note
//   ["k", at, end, fields]                 what the stack says of itself, as far as it changed
const KIND = 0, AT = 1, FROM = 2, NUMBER = 3, FLAGS = 4, SEQ = 5, LEN = 6, ACK = 7, WIN = 8, OPTS = 9, FATES = 10, BITS = 11;
const AGAIN = 1, FORGED = 2, OLD_SEQ = 4, OLD_ACK = 8;
const STEP = 256;

// What is in base64 and gzip, as the body of a response.
function unpacked(text) {
	const packed = Uint8Array.from(atob(text.trim()), c => c.charCodeAt(0));
	return new Response(new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip")));
}

async function decode(text) {
	const data = JSON.parse(await unpacked(text).text());
	if (data.format !== 1) throw new Error(`format ${data.format}: expected 1`);
	if (!Array.isArray(data.connections)) throw new Error("no list of connections");
	return data;
}

const has = (row, flag) => row[FLAGS].includes(flag);
const isData = row => row[KIND] === "p";
const isPacket = row => row[KIND] === "p" || row[KIND] === "i";
const fates = row => row[row[KIND] === "p" ? FATES : 5] || [];
const space = row => row[LEN] + (has(row, "S") ? 1 : 0) + (has(row, "F") ? 1 : 0);
// The number nearest to `near` that is `low` modulo 2^32.
const unwrap = (low, near) => near === null ? low : low + Math.round((near - low) / 4294967296) * 4294967296;

function freshEnd() {
	return { state: null, una: null, nxt: null, wnd: null, rcvNxt: null, rcvWnd: null, scale: null, got: null, gaps: [], sacked: [], sent: [],
		rtt: null, rttBy: 0, again: 0, backoff: 0, armed: null, by: {}, known: {} };
}

// Adds [from, to) to sorted, disjoint ranges.
function addRange(ranges, from, to) {
	const out = [];
	for (const [a, b] of ranges) {
		if (b < from || a > to) out.push([a, b]);
		else { from = Math.min(from, a); to = Math.max(to, b); }
	}
	out.push([from, to]);
	return out.sort((x, y) => x[0] - y[0]).slice(-64);
}

class Replay {
	constructor(connection) {
		this.c = connection;
		this.rows = connection.rows;
		this.wholly = connection.knows === "stack";
		this.scaled = this.handshakeScale();
		this.evidence = new Map();
		for (const finding of connection.findings || [])
			for (const e of finding.evidence || []) {
				if (!this.evidence.has(e.packet)) this.evidence.set(e.packet, []);
				this.evidence.get(e.packet).push({ id: finding.id, what: e.what, severity: finding.severity });
			}
		this.number();
		this.arrivals();
		this.order();
		this.run();
	}

	handshakeScale() {
		const shift = [null, null], seen = [false, false];
		for (const row of this.rows)
			if (isData(row) && has(row, "S") && row[FROM] >= 0) {
				seen[row[FROM]] = true;
				shift[row[FROM]] = row[OPTS].w ?? null;
			}
		const on = shift[0] !== null && shift[1] !== null;
		return { shift: on ? shift : [0, 0], known: seen[0] && seen[1] };
	}

	// Sequence numbers without wraps.
	number() {
		const top = [null, null];
		this.seq = new Float64Array(this.rows.length);
		this.ack = new Float64Array(this.rows.length);
		this.rows.forEach((row, i) => {
			if (!isData(row) || row[FROM] < 0) return;
			const way = row[FROM];
			const first = has(row, "S") && !has(row, ".");
			if (first && !(row[BITS] & AGAIN)) { top[0] = 0; top[1] = 0; }
			this.seq[i] = unwrap(row[SEQ], top[way]);
			this.ack[i] = unwrap(row[ACK], top[1 - way]);
			if (!(row[BITS] & (OLD_SEQ | FORGED)) && !has(row, "R")) top[way] = Math.max(top[way] ?? this.seq[i], this.seq[i] + space(row));
		});
	}

	// When each packet left and arrived, and how that is known: "stack", "seen" (at the other end), "implied", "unknown".
	arrivals() {
		const legs = this.c.legs || [0, 0];
		this.left = new Float64Array(this.rows.length);
		this.reached = new Array(this.rows.length).fill(null);
		this.lost = new Array(this.rows.length).fill(null);
		this.proof = new Int32Array(this.rows.length).fill(-1);
		const open = [[], []];
		this.rows.forEach((row, i) => {
			this.left[i] = row[AT];
			if (!isPacket(row)) return;
			const way = row[FROM];
			for (const fate of fates(row)) {
				if (fate[0] === "X") this.lost[i] = fate[1];
				else if (this.reached[i] === null) this.reached[i] = fate[0];
			}
			if (this.reached[i] !== null) { this.lost[i] = null; this.proof[i] = -2; }
			if (this.wholly || way < 0 || this.proof[i] === -2 || this.lost[i] !== null) return;
			this.left[i] = row[AT] - (legs[way] || 0);
			this.reached[i] = row[AT] + (legs[1 - way] || 0);
			if (!isData(row)) return;
			if (space(row) > 0) open[way].push([this.seq[i], this.seq[i] + space(row), i]);
			if (has(row, ".") && !(row[BITS] & OLD_ACK)) {
				const proven = (from, to) => {
					const kept = [];
					for (const one of open[1 - way]) if (one[0] >= from && one[1] <= to) this.proof[one[2]] = i; else kept.push(one);
					open[1 - way] = kept;
				};
				if (open[1 - way].length) {
					proven(-Infinity, this.ack[i]);
					for (const [a, b] of row[OPTS].s || []) proven(unwrap(a, this.ack[i]), unwrap(b, this.ack[i]));
				}
			}
		});
		this.settle();
		// Where one of several copies was acknowledged, it was the last that can be.
		const last = new Map();
		this.rows.forEach((row, i) => {
			if (!isData(row) || this.proof[i] < 0) return;
			const key = row[FROM] + ":" + this.seq[i] + ":" + this.proof[i];
			if (last.has(key)) this.proof[last.get(key)] = -1;
			last.set(key, i);
		});
	}

	// A state that packets imply begins when its packet leaves, or when it arrives at the other end.
	settle() {
		let next = -1;
		if (this.wholly) return;
		for (let i = this.rows.length - 1; i >= 0; i--) {
			const row = this.rows[i];
			if (isPacket(row)) next = i;
			else if (next >= 0 && row[AT] === this.rows[next][AT]) this.left[i] = row[KIND] === "s" && row[FROM] !== this.rows[next][FROM] && next > 2 ? this.reached[next] ?? row[AT] : this.left[next];
		}
	}

	order() {
		this.events = [];
		this.rows.forEach((row, i) => {
			this.events.push([this.left[i], 0, i]);
			if (isPacket(row) && this.reached[i] !== null) this.events.push([this.reached[i], 1, i]);
		});
		this.events.forEach((event, n) => event.push(n));
		// At one time, arrivals come before what they cause.
		this.events.sort((a, b) => a[0] - b[0] || a[3] - b[3]);
		this.primary = new Int32Array(this.rows.length);
		this.events.forEach((event, n) => { if (event[1] === 0) this.primary[event[2]] = n; });
	}

	run() {
		this.checkpoints = [];
		this.states = this.rows.map(() => null);
		const ends = [freshEnd(), freshEnd()];
		this.events.forEach((event, n) => {
			if (n % STEP === 0) this.checkpoints.push(structuredClone(ends));
			this.apply(ends, event);
			if (event[1] === 0) this.states[event[2]] = [ends[0].state, ends[1].state];
		});
	}

	// Both ends after the event of a row.
	at(row) {
		const to = this.rows.length ? this.primary[row] : -1;
		const from = Math.floor(Math.max(to, 0) / STEP);
		const ends = structuredClone(this.checkpoints[from] || [freshEnd(), freshEnd()]);
		for (let n = from * STEP; n <= to; n++) this.apply(ends, this.events[n]);
		return ends;
	}

	apply(ends, [time, arrives, i]) {
		const row = this.rows[i];
		if (row[KIND] === "s") { const end = ends[row[FROM]]; end.state = row[4]; end.by.state = i; return; }
		if (row[KIND] === "k") { Object.assign(ends[row[FROM]].known, row[3]); return; }
		if (!isData(row) || row[FROM] < 0 || row[BITS] & FORGED && !arrives) return;
		if (arrives) this.arrive(ends[1 - row[FROM]], row, i, time); else this.send(ends[row[FROM]], row, i, time);
	}

	window(row, way) { return has(row, "S") ? row[WIN] : row[WIN] * 2 ** this.scaled.shift[way]; }

	send(end, row, i, time) {
		const seq = this.seq[i], to = seq + space(row);
		if (has(row, "S") && !(row[BITS] & AGAIN)) Object.assign(end, freshEnd(), { state: end.state, known: end.known, by: { state: end.by.state } });
		if (has(row, "R") || row[BITS] & OLD_SEQ) return;
		if (end.una === null) { end.una = seq; end.by.una = i; }
		if (space(row) > 0) {
			const again = end.nxt !== null && seq < end.nxt;
			if (again) end.again++;
			end.sent = end.sent.filter(s => s[0] !== to).concat([[to, time, again]]).slice(-512);
			end.armed = end.armed === null || again ? time : end.armed;
		}
		if (end.nxt === null || to > end.nxt) { end.nxt = to; end.by.nxt = i; }
		if (has(row, ".")) {
			if (!(row[BITS] & OLD_ACK)) { end.rcvNxt = this.ack[i]; end.by.rcvNxt = i; }
			end.rcvWnd = this.window(row, row[FROM]);
			end.by.rcvWnd = i;
		}
	}

	arrive(end, row, i, time) {
		const seq = this.seq[i], to = seq + space(row);
		if (has(row, "R")) return;
		if (has(row, ".") && end.nxt !== null && !(row[BITS] & OLD_ACK)) {
			const ack = this.ack[i];
			if (ack > end.una && ack <= end.nxt) {
				const covered = end.sent.filter(s => s[0] <= ack);
				const newest = covered[covered.length - 1];
				if (newest && !newest[2]) { end.rtt = time - newest[1]; end.rttBy = i; end.backoff = 0; }
				end.sent = end.sent.filter(s => s[0] > ack);
				end.una = ack;
				end.by.una = i;
				end.armed = end.sent.length ? time : null;
				end.sacked = end.sacked.filter(r => r[1] > ack);
			}
			if (ack >= end.una) { end.wnd = this.window(row, row[FROM]); end.by.wnd = i; }
			for (const [a, b] of row[OPTS].s || []) {
				const from = unwrap(a, ack), upto = unwrap(b, ack);
				if (from >= end.una && upto > from) { end.sacked = addRange(end.sacked, from, upto); end.by.sacked = i; }
			}
		}
		if (space(row) > 0 && !(row[BITS] & OLD_SEQ)) {
			if (has(row, "S") || end.got === null) { end.got = to; end.gaps = []; return; }
			if (seq <= end.got) end.got = Math.max(end.got, to); else { end.gaps = addRange(end.gaps, seq, to); end.by.gaps = i; }
			while (end.gaps.length && end.gaps[0][0] <= end.got) end.got = Math.max(end.got, end.gaps.shift()[1]);
		}
	}
}

const bytesIn = ranges => ranges.reduce((sum, [a, b]) => sum + b - a, 0);

// A segment as tcpdump writes it, with relative numbers.
function segmentText(row, seq, ack) {
	const old = bit => row[BITS] & bit ? "'" : "";
	let text = `[${row[FLAGS]}]`;
	if (row[LEN] > 0) text += ` seq ${seq}:${seq + row[LEN]}${old(OLD_SEQ)}`;
	else if (/[SFR]/.test(row[FLAGS]) || !has(row, ".")) text += ` seq ${seq}${old(OLD_SEQ)}`;
	if (has(row, ".")) text += ` ack ${ack}${old(OLD_ACK)}`;
	text += ` win ${row[WIN]}`;
	const o = row[OPTS], list = [];
	if (o.m !== undefined) list.push(`mss ${o.m}`);
	if (o.k) list.push("sackOK");
	if (o.t && has(row, "S")) list.push("ts");
	if (o.w !== undefined) list.push(`ws ${o.w}`);
	for (const [a, b] of o.s || []) list.push(`sack ${a | 0}:${b | 0}`);
	if (o.f) list.push(o.f);
	return list.length ? `${text} <${list.join(",")}>` : text;
}

function duration(ns) {
	const s = Math.abs(ns) / 1e9, sign = ns < 0 ? "-" : "";
	if (s >= 3600) return `${sign}${Math.floor(s / 3600)}h${String(Math.floor(s / 60) % 60).padStart(2, "0")}m`;
	if (s >= 120) return `${sign}${Math.floor(s / 60)}m${String(Math.floor(s) % 60).padStart(2, "0")}s`;
	if (s >= 1) return sign + s.toFixed(3) + " s";
	if (s >= 0.001) return sign + (s * 1000).toFixed(s >= 0.1 ? 0 : 2) + " ms";
	return sign + (s * 1e6).toFixed(0) + " µs";
}

function bytes(n) {
	if (n < 10000) return `${n} B`;
	return n < 1e7 ? `${(n / 1000).toFixed(1)} kB` : `${(n / 1e6).toFixed(1)} MB`;
}

// Where times lie on an axis. A pause of a quarter of the whole or more takes a fixed small part.
class Axis {
	constructor(times, from = 0, to = 1) {
		this.stops = [[from, 0]];
		const whole = Math.max(to - from, 1), pauses = [];
		let before = from;
		for (const t of times) {
			if (t < from || t > to) continue;
			if (t - before > whole / 4) pauses.push([before, t]);
			before = t;
		}
		const busy = whole - pauses.reduce((sum, [a, b]) => sum + b - a, 0);
		const small = pauses.length ? Math.min(0.04, 0.5 / pauses.length) : 0, rest = 1 - small * pauses.length;
		let x = 0, last = from;
		const step = (t, width) => { x += width; this.stops.push([t, x]); last = t; };
		this.pauses = [];
		for (const [a, b] of pauses) {
			step(a, busy > 0 ? (a - last) / busy * rest : 0);
			this.pauses.push([x, x + small, b - a]);
			step(b, small);
		}
		if (busy > 0) step(to, (to - last) / busy * rest);
		const end = this.stops[this.stops.length - 1][1] || 1;
		for (const stop of this.stops) stop[1] /= end;
		for (const pause of this.pauses) { pause[0] /= end; pause[1] /= end; }
	}
	between(value, key, other) {
		const s = this.stops;
		let low = 0, high = s.length - 1;
		while (high - low > 1) { const mid = (low + high) >> 1; if (s[mid][key] <= value) low = mid; else high = mid; }
		const [a, b] = [s[low], s[high]];
		if (a[key] === b[key]) return b[other];
		return a[other] + (value - a[key]) / (b[key] - a[key]) * (b[other] - a[other]);
	}
	x(t) { return Math.min(1, Math.max(0, this.between(t, 0, 1))); }
	t(x) { return this.between(x, 1, 0); }
}
