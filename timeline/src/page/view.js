// The page: what is drawn, and what keys and pointers do.
const $ = id => document.getElementById(id);
// A lost packet gets this far.
const LOST = 0.9;
const ROW = 22, STATE_WIDTH = 98, TIME_WIDTH = 92;
let data = null, shown = 0, replay = null, visible = [], placeOf = [], cursor = 0, linear = false, way = 0;
let tops = null, longest = 0, scaleY = 0, axis = null, plotted = null, playing = null, speed = 1, chosen = -1, order = { key: "n", down: false };
// A script behind this one may set its `begin`, `selftest`, and `link`, which begins a link.
let addition = null;

function element(tag, text, className) {
	const made = document.createElement(tag);
	if (text !== undefined) made.textContent = text;
	if (className) made.className = className;
	return made;
}
const color = name => getComputedStyle(document.documentElement).getPropertyValue("--" + name).trim();
let colors = {};
function readColors() {
	for (const name of ["bg", "panel", "fg", "muted", "line", "cursor", "cursor-line", "out", "in", "again", "zero", "reset", "copy", "edge", "sack", "error", "warning", "info"]) colors[name] = color(name);
}
function dress(theme) {
	document.documentElement.dataset.theme = theme;
	readColors();
	plotted = null;
	if (replay) move(cursor, true);
}
function say(text) { $("status").textContent = text; }
function fail(error) {
	document.documentElement.className = "broken";
	say(`This page cannot be shown: ${error && error.message ? error.message : error}`);
}
function sized(canvas, width, height) {
	const ratio = window.devicePixelRatio || 1;
	canvas.width = Math.round(width * ratio);
	canvas.height = Math.round(height * ratio);
	canvas.style.width = width + "px";
	canvas.style.height = height + "px";
	const pen = canvas.getContext("2d");
	pen.setTransform(ratio, 0, 0, ratio, 0, 0);
	return pen;
}
const SANS = '11px system-ui, "Noto Sans", sans-serif';
const mono = size => `${size}px ui-monospace, "DejaVu Sans Mono", Menlo, Consolas, monospace`;

// ---- The list of connections ----

const COLUMNS = [
	["n", "#", c => c.n, "n"], ["client", "client", c => c.ends[0]], ["server", "server", c => c.ends[1]], ["start", "time", c => c.start],
	["lasted", "lasted", c => c.lasted, "n"], ["bytes", "bytes", c => c.bytes[0] + c.bytes[1], "n"], ["again", "sent again", c => c.again, "n"],
	["ended", "ended", c => c.ended || ""], ["findings", "findings", c => -rank(c)],
];
const RANK = { error: 3, warning: 2, info: 1 };
const rank = c => Math.max(0, ...(c.findings || []).map(f => RANK[f.severity] || 0)) * 1000 + (c.findings || []).length;

function drawColumns() {
	$("columns").replaceChildren(...COLUMNS.map(([key, title]) => {
		const head = element("th"), button = element("button", title + (order.key === key ? (order.down ? " ↓" : " ↑") : ""));
		head.setAttribute("aria-sort", order.key === key ? (order.down ? "descending" : "ascending") : "none");
		button.onclick = () => { order = { key, down: order.key === key && !order.down }; drawList(); };
		head.append(button);
		return head;
	}));
}

function drawList() {
	drawColumns();
	const all = data.connections, words = $("filter").value.toLowerCase().split(/\s+/).filter(Boolean);
	const text = c => [c.name, c.n, ...c.ends, c.history, c.ended, ...(c.findings || []).map(f => f.id + " " + f.severity)].join(" ").toLowerCase();
	const rows = all.map((c, i) => [c, i]).filter(([c]) => words.every(word => text(c).includes(word)));
	const value = COLUMNS.find(column => column[0] === order.key)[2];
	rows.sort((a, b) => { const [x, y] = [value(a[0]), value(b[0])]; return (x < y ? -1 : x > y ? 1 : a[1] - b[1]) * (order.down ? -1 : 1); });
	const whole = Math.max(1, ...all.map(c => c.start + c.lasted));
	$("connections").replaceChildren(...rows.map(([c, i]) => {
		const row = element("tr");
		row.tabIndex = 0;
		row.dataset.index = i;
		row.setAttribute("aria-selected", i === shown);
		const cell = (content, className) => { const made = element("td", content, className); row.append(made); return made; };
		cell(c.name ? `${c.n} ${c.name}` : c.n, "n");
		cell(c.ends[0]);
		cell(c.ends[1]);
		const span = element("div", undefined, "span"), bar = element("i", undefined, c.ended === "reset" ? "reset" : c.ended === "fin-both" ? "" : "open");
		bar.style.left = 97 * c.start / whole + 1 + "%";
		bar.style.width = 97 * c.lasted / whole + "%";
		span.append(bar);
		cell("").append(span);
		cell(duration(c.lasted), "n");
		cell(bytes(c.bytes[0] + c.bytes[1]), "n");
		cell(c.again || "", "n");
		cell(c.ended || "");
		const found = cell("");
		const seen = new Set();
		for (const f of c.findings || []) if (!seen.has(f.id) && seen.size < 4) { seen.add(f.id); found.append(element("span", f.id + " ", f.severity)); }
		row.onclick = () => open(i);
		row.onkeydown = event => { if (event.key === "Enter") { open(i); $("view").focus(); event.stopPropagation(); } };
		return row;
	}));
	const left = data.left_out ? `, ${data.left_out} more are left out` : "";
	$("count").textContent = rows.length === all.length ? `${all.length} connections${left}` : `${rows.length} of ${all.length} connections${left}`;
	$("list").classList.toggle("one", all.length === 1);
}

// ---- One connection ----

function open(index, packet) {
	shown = index;
	const c = data.connections[index];
	replay = new Replay(c);
	chosen = -1;
	document.body.classList.toggle("datagrams", c.ended === "datagrams");
	// Changes of state show in the rows of the packets that cause them.
	const at = new Set(replay.events.filter(e => isPacket(c.rows[e[2]])).flatMap(e => replay.wholly ? [e[0]] : [c.rows[e[2]][AT]]));
	visible = [];
	placeOf = new Int32Array(c.rows.length);
	c.rows.forEach((row, i) => {
		if (row[KIND] !== "k" && !(row[KIND] === "s" && (at.has(row[AT]) || row[AT] === 0))) visible.push(i);
		placeOf[i] = Math.max(0, visible.length - 1);
	});
	if (!visible.length && c.rows.length) visible.push(0);
	visible.sort((a, b) => replay.left[a] - replay.left[b] || a - b);
	visible.forEach((row, place) => { placeOf[row] = place; });
	const times = visible.map(i => replay.left[i]);
	const last = Math.max(1, ...[0, times[times.length - 1] || 0], ...visible.slice(-50).map(i => replay.reached[i] || 0));
	axis = new Axis(times, Math.min(0, times[0] || 0), last);
	way = c.bytes[1] > c.bytes[0] ? 1 : 0;
	$("end0").textContent = c.hosts[0];
	$("end1").textContent = c.hosts[1];
	$("end0").title = c.ends[0];
	$("end1").title = c.ends[1];
	for (const row of $("connections").children) row.setAttribute("aria-selected", Number(row.dataset.index) === index);
	plotted = null;
	place();
	drawFindings();
	let first = packet ? c.rows.findIndex(row => isPacket(row) && row[NUMBER] === packet) : -1;
	move(first >= 0 ? placeOf[first] : 0, true);
	draw();
}

// The height of each row: one below the other, or by time.
function place() {
	tops = new Float64Array(visible.length);
	const start = replay.left[visible[0]] || 0;
	if (linear && visible.length > 1) {
		const gaps = visible.slice(1).map((row, i) => replay.left[row] - replay.left[visible[i]]).filter(gap => gap > 0).sort((a, b) => a - b);
		const whole = replay.left[visible[visible.length - 1]] - start;
		scaleY = Math.min(ROW / Math.max(gaps[gaps.length >> 1] || 1, 1), 2e6 / Math.max(whole, 1));
		visible.forEach((row, i) => { tops[i] = ROW + (replay.left[row] - start) * scaleY; });
	} else visible.forEach((_, i) => { tops[i] = ROW * (i + 0.75); });
	longest = 0;
	visible.forEach((row, i) => { if (replay.reached[row] !== null) longest = Math.max(longest, heightOf(replay.reached[row]) - tops[i]); });
	$("tall").style.height = (tops[tops.length - 1] || 0) + 2 * ROW + "px";
}

// The height of a time: that of a row at this time, else between two rows.
function heightOf(time) {
	if (linear) return ROW + (time - (replay.left[visible[0]] || 0)) * scaleY;
	let low = 0, high = visible.length;
	while (low < high) { const mid = (low + high) >> 1; if (replay.left[visible[mid]] < time) low = mid + 1; else high = mid; }
	if (low === visible.length) return (tops[low - 1] || 0) + ROW * 0.8;
	const next = replay.left[visible[low]];
	if (next === time || low === 0) return tops[low];
	const before = replay.left[visible[low - 1]];
	return tops[low - 1] + (tops[low] - tops[low - 1]) * (time - before) / (next - before);
}

function firstBelow(y) {
	let low = 0, high = tops.length;
	while (low < high) { const mid = (low + high) >> 1; if (tops[mid] < y) low = mid + 1; else high = mid; }
	return low;
}

function hue(row, i) {
	if (row[KIND] === "i") return colors.zero;
	if (has(row, "R")) return colors.reset;
	if (row[BITS] & FORGED) return colors.copy;
	if (row[BITS] & AGAIN && space(row) > 0) return colors.again;
	if (row[WIN] === 0 && has(row, ".")) return colors.zero;
	return row[FROM] === 0 ? colors.out : row[FROM] === 1 ? colors.in : colors.copy;
}

function draw() {
	if (!replay) return;
	const view = $("view"), width = view.clientWidth, height = view.clientHeight;
	const pen = sized($("canvas"), width, height);
	const c = data.connections[shown], top = view.scrollTop;
	const remarks = Math.max(70, Math.min(230, width * 0.21));
	const left = TIME_WIDTH + STATE_WIDTH, right = width - remarks - STATE_WIDTH;
	heads(c, left, right, width);
	pen.fillStyle = colors.bg;
	pen.fillRect(0, 0, width, height);
	const from = Math.max(0, firstBelow(top - Math.min(longest, 40000) - ROW)), to = Math.min(visible.length, firstBelow(top + height + ROW));
	const y = i => tops[i] - top;
	pen.fillStyle = colors.cursor;
	pen.fillRect(0, y(cursor) - ROW / 2, width, ROW);
	pen.fillStyle = colors["cursor-line"];
	pen.fillRect(0, y(cursor) - ROW / 2, 3, ROW);
	pen.strokeStyle = colors.line;
	pen.lineWidth = 1.5;
	for (const x of [left, right]) { pen.beginPath(); pen.moveTo(x, 0); pen.lineTo(x, height); pen.stroke(); }
	pen.textBaseline = "middle";
	for (let i = from; i < to; i++) arrow(pen, visible[i], y(i), top, left, right, height);
	let before = -ROW;
	for (let i = Math.max(0, Math.min(from, to)); i < to; i++) {
		if (y(i) < -ROW || y(i) - before < 13 && i !== cursor) continue;
		before = y(i);
		words(pen, i, y(i), left, right, width);
	}
}

function heads(c, left, right, width) {
	const [, a, b] = $("heads").children;
	a.textContent = c.hosts[0] === c.ends[0] ? c.ends[0] : `${c.hosts[0]}  ${c.ends[0]}`;
	b.textContent = c.hosts[1] === c.ends[1] ? c.ends[1] : `${c.hosts[1]}  ${c.ends[1]}`;
	a.style.left = Math.max(4, left - STATE_WIDTH) + "px";
	const second = Math.min(right - 60, width - b.offsetWidth - 6);
	b.style.left = second + "px";
	a.style.maxWidth = second - Math.max(4, left - STATE_WIDTH) - 10 + "px";
}

function arrow(pen, i, y, top, left, right, height) {
	const row = replay.rows[i];
	if (!isPacket(row)) return;
	const outward = row[FROM] === 0 || row[FROM] < 0 && row[isData(row) ? 12 : 6] === 1;
	const start = row[FROM] < 0 ? (left + right) / 2 : outward ? left : right, goal = outward ? right : left;
	const lost = replay.lost[i];
	const end = replay.reached[i] === null ? y + 1 : heightOf(replay.reached[i]) - top;
	if (end < -ROW || y > height + ROW) return;
	const doubt = !replay.wholly && lost === null && replay.proof[i] === -1 && isData(row) && space(row) > 0;
	const tint = hue(row, i), part = lost !== null ? LOST : 1;
	const x = start + (goal - start) * part, tip = y + (end - y) * part;
	pen.strokeStyle = pen.fillStyle = tint;
	pen.lineWidth = isData(row) && row[LEN] > 0 ? 1.6 : 1.1;
	pen.setLineDash(row[BITS] & FORGED ? [2, 3] : doubt ? [6, 4] : []);
	pen.beginPath();
	pen.moveTo(start, y);
	pen.lineTo(x, tip);
	pen.stroke();
	pen.setLineDash([]);
	const angle = Math.atan2(tip - y, x - start);
	pen.save();
	pen.translate(x, tip);
	if (lost !== null) {
		// Drawn over the words.
	} else if (doubt) {
		pen.fillStyle = colors.bg;
		pen.fillRect(goal > start ? -13 : 3, -7, 11, 14);
		pen.fillStyle = tint;
		pen.font = "bold " + mono(12);
		pen.textAlign = "center";
		pen.fillText("?", goal > start ? -7 : 8, 0);
	} else {
		pen.rotate(angle);
		pen.beginPath();
		pen.moveTo(0, 0); pen.lineTo(-9, -4); pen.lineTo(-9, 4);
		pen.fill();
	}
	pen.restore();
}

function clip(pen, text, width) {
	if (pen.measureText(text).width <= width) return text;
	let low = 0, high = text.length;
	while (low < high) { const mid = (low + high + 1) >> 1; if (pen.measureText(text.slice(0, mid) + "…").width <= width) low = mid; else high = mid - 1; }
	return text.slice(0, low) + "…";
}

const rowText = i => {
	const row = replay.rows[i];
	if (row[KIND] === "p") return segmentText(row, replay.seq[i], replay.ack[i]);
	if (row[KIND] === "s") return `${row[3] || "CLOSED"} > ${row[4]}`;
	return row[KIND] === "i" ? row[4] : row[3];
};

function remark(i) {
	const row = replay.rows[i], said = [];
	if (!isPacket(row)) return "";
	if (row[NUMBER]) for (const e of replay.evidence.get(row[NUMBER]) || []) if (e.id !== "lost" && e.id !== "fault") said.push(e.what);
	if (isData(row) && row[BITS] & AGAIN && !said.length) said.push("again");
	if (replay.lost[i] !== null) said.push("lost: " + replay.lost[i]);
	for (const fate of fates(row)) if (fate[0] !== "X" && fate[1]) said.push(fate[1]);
	return said.join("; ");
}

function words(pen, place, y, left, right, width) {
	const i = visible[place], row = replay.rows[i], packet = isPacket(row);
	pen.font = mono(11);
	pen.textAlign = "right";
	pen.fillStyle = colors.muted;
	pen.fillText((row[AT] / 1e9).toFixed(6), TIME_WIDTH - 14, y);
	const states = replay.states[i] || [], above = place ? replay.states[visible[place - 1]] || [] : [];
	for (const end of [0, 1]) {
		const known = states[end] || "";
		const sure = replay.wholly || !known || known === "CLOSED" ? "" : replay.c.guessed && replay.c.guessed[end] ? "?" : "";
		pen.fillStyle = known !== above[end] ? colors.fg : colors.copy;
		pen.font = known !== above[end] ? "600 " + mono(11) : mono(11);
		pen.textAlign = end ? "left" : "right";
		pen.fillText(known + sure, end ? right + 8 : left - 8, y);
	}
	pen.font = mono(11.5);
	const room = right - left - 36, text = clip(pen, rowText(i), room), long = pen.measureText(text).width;
	const rightward = packet ? row[FROM] !== 1 : row[2] !== 1;
	const middle = packet && row[FROM] < 0 || !packet && row[2] < 0;
	const x = middle ? (left + right - long) / 2 : rightward ? left + 16 : right - 16 - long;
	pen.textAlign = "left";
	pen.fillStyle = place === cursor ? colors.cursor : colors.bg;
	pen.globalAlpha = 0.88;
	pen.fillRect(x - 4, y - 8, long + 8, 16);
	pen.globalAlpha = 1;
	pen.fillStyle = packet ? hue(row, i) : row[KIND] === "n" ? colors.zero : colors.muted;
	pen.fillText(text, x, y);
	if (packet && replay.lost[i] !== null) {
		const from = rightward ? left : right, cross = from + (right + left - 2 * from) * LOST;
		pen.lineWidth = 2.4;
		pen.strokeStyle = colors.again;
		pen.beginPath();
		pen.moveTo(cross - 5, y - 5); pen.lineTo(cross + 5, y + 5); pen.moveTo(cross - 5, y + 5); pen.lineTo(cross + 5, y - 5);
		pen.stroke();
	}
	const said = remark(i), at = right + STATE_WIDTH;
	pen.font = mono(11);
	pen.fillStyle = colors.muted;
	if (packet && row[NUMBER]) pen.fillText("#" + row[NUMBER], at, y);
	if (said) {
		const evidence = replay.evidence.get(row[NUMBER]) || [];
		pen.fillStyle = evidence.length ? colors[evidence[0].severity] || colors.fg : colors.again;
		pen.font = SANS;
		pen.fillText(clip(pen, said, width - at - 52), at + 46, y);
	}
}

// ---- Both ends at the cursor ----

const STACK = "stack", SEEN = "seen", IMPLIED = "implied", UNKNOWN = "unknown";

// Rows of the table: the name, and a function of an end that gives the value and how it is known.
function facts(end, side) {
	const k = end.known, number = value => value === undefined || value === null ? "–" : value === 4294967295 ? "∞" : Number(value).toLocaleString("en").replaceAll(",", " ");
	const by = name => { const i = end.by[name]; return i === undefined ? "" : replay.rows[i][NUMBER] && isPacket(replay.rows[i]) ? "#" + replay.rows[i][NUMBER] : ""; };
	const told = (name, show = number) => name in k ? [show(k[name]), STACK] : null;
	const scaleKnown = replay.scaled.known ? SEEN : IMPLIED;
	const flight = end.nxt === null ? null : end.nxt - end.una;
	const none = ["–", UNKNOWN];
	return {
		"State": [end.state || "–", end.state ? (replay.wholly ? STACK : IMPLIED) : UNKNOWN, ""],
		"SND.UNA": end.una === null ? none : [number(end.una), replay.wholly ? STACK : IMPLIED, by("una")],
		"SND.NXT": end.nxt === null ? none : [number(end.nxt), replay.wholly ? STACK : SEEN, by("nxt")],
		"SND.WND": told("snd_wnd") || (end.wnd === null ? none : [number(end.wnd), scaleKnown, by("wnd")]),
		"RCV.NXT": end.rcvNxt === null ? none : [number(end.rcvNxt), replay.wholly ? STACK : SEEN, by("rcvNxt")],
		"RCV.WND": told("rcv_wnd") || (end.rcvWnd === null ? none : [number(end.rcvWnd), scaleKnown, by("rcvWnd")]),
		"in flight": told("unacked") || (flight === null ? none : [number(flight), IMPLIED, ""]),
		"SACKed": told("sacked") || [number(bytesIn(end.sacked)), IMPLIED, by("sacked")],
		"cwnd": told("snd_cwnd") || (flight ? ["≥ " + number(flight), IMPLIED, ""] : none),
		"ssthresh": told("snd_ssthresh") || none,
		"RTT": told("rtt", duration) || (end.rtt === null ? none : [duration(end.rtt), IMPLIED, by("una")]),
		"RTO": told("rto", duration) || none,
		"backoff": told("backoff") || none,
		"loss recovery": told("ca_state", value => value) || none,
		"sent again": told("total_retrans") || [number(end.again), SEEN, ""],
	};
}
const APART = new Set(["RCV.NXT", "in flight", "RTT", "loss recovery"]);

function drawBlocks() {
	const ends = replay.at(visible[cursor] ?? 0), both = [facts(ends[0], 0), facts(ends[1], 1)];
	$("fields").replaceChildren(...Object.keys(both[0]).map(name => {
		const row = element("tr", undefined, APART.has(name) ? "apart" : "");
		row.append(element("td", name));
		for (const side of both) {
			const [value, how, by] = side[name], cell = element("td", value, how);
			if (by) cell.append(element("span", by, "by"));
			cell.title = { stack: "known by the stack", seen: "seen in a packet", implied: "implied by packets", unknown: "packets do not tell" }[how] + (by ? `: ${by}` : "");
			row.append(cell);
		}
		return row;
	}));
	drawQueues(ends);
	drawTimers(ends);
	return ends;
}

function drawQueues(ends) {
	const made = [];
	let most = 1;
	const parts = ends.map((end, side) => {
		const k = end.known, told = (name, else_) => name in k ? k[name] : else_;
		const sacked = told("sacked", bytesIn(end.sacked)), unacked = told("unacked", end.nxt === null ? 0 : end.nxt - end.una);
		const lists = [
			["sends", [["sacked", sacked], ["flight", Math.max(0, unacked - sacked)], ["unsent", told("notsent_bytes", 0)]], "notsent_bytes" in k],
			["receives", [["unread", told("recv_q", 0)], ["gap", told("out_of_order", bytesIn(end.gaps))]], "recv_q" in k],
		];
		for (const [, list] of lists) most = Math.max(most, list.reduce((sum, part) => sum + part[1], 0));
		return [side, lists];
	});
	const label = { sacked: "SACKed", flight: "in flight", unsent: "unsent", unread: "unread", gap: "out of order" };
	for (const [side, lists] of parts)
		for (const [title, list] of lists) {
			const line = element("div", undefined, "queue"), bar = element("div");
			line.append(element("span", `${short(side)} ${title}`), bar);
			for (const [kind, size] of list) if (size > 0) {
				const part = element("i", `${label[kind]} ${bytes(size)}`, kind);
				part.style.width = 100 * size / most + "%";
				part.title = part.textContent;
				bar.append(part);
			}
			made.push(line);
		}
	$("queues").replaceChildren(...made);
}
const short = side => { const host = data.connections[shown].hosts[side]; return host.length <= 6 ? host : side ? "server" : "client"; };

function drawTimers(ends) {
	const now = replay.left[visible[cursor] ?? 0], lines = [];
	const line = (text, part, left, how) => {
		const made = element("div", undefined, "timer " + how), bar = element("b"), fill = element("i");
		fill.style.width = 100 * Math.min(1, Math.max(0, part)) + "%";
		bar.append(fill);
		made.append(element("span", text), bar, element("span", left));
		lines.push(made);
	};
	const names = { retransmit_timer: "retransmit", persist_timer: "persist", delayed_ack_timer: "delayed ACK", keepalive_timer: "keepalive" };
	ends.forEach((end, side) => {
		let any = false;
		for (const [name, title] of Object.entries(names)) {
			const due = end.known[name];
			if (due === undefined || due === null || ["CLOSED", "TIME-WAIT"].includes(end.state)) continue;
			const left = due - now, whole = name === "retransmit_timer" ? (end.known.rto || left) * 2 ** (end.known.backoff || 0) : Math.max(left, 1);
			line(`${short(side)} ${title}`, left / whole, left >= 0 ? duration(left) : "due", "stack");
			any = true;
		}
		if (!any && !replay.wholly && end.armed !== null && end.sent.length) line(`${short(side)} retransmit`, 1, `since ${duration(now - end.armed)}`, "implied");
	});
	if (!lines.length) lines.push(element("div", replay.wholly ? "none runs" : "none is implied", "unknown"));
	$("timers").replaceChildren(...lines);
}

// ---- The segment at the cursor ----

function drawDetails() {
	const box = $("details");
	if (box.hidden) return;
	const i = visible[cursor], row = replay.rows[i];
	const lines = [`${(replay.left[i] / 1e9).toFixed(9)} s   ${rowText(i)}`];
	if (isData(row)) {
		const names = { S: "SYN", F: "FIN", R: "RST", P: "PSH", ".": "ACK", U: "URG", E: "ECE", W: "CWR" };
		lines.push(`flags ${[...row[FLAGS]].map(flag => names[flag] || flag).join(" ") || "none"}   payload ${row[LEN]} B   window ${row[WIN]} × ${has(row, "S") ? 1 : 2 ** replay.scaled.shift[Math.max(0, row[FROM])]}`);
		if (row[OPTS].t) lines.push(`timestamps ${row[OPTS].t[0]} echo ${row[OPTS].t[1]}`);
	}
	if (isPacket(row)) {
		if (replay.lost[i] !== null) lines.push(`lost: ${replay.lost[i]}`);
		else if (replay.proof[i] >= 0) lines.push(`arrived: #${replay.rows[replay.proof[i]][NUMBER]} acknowledges it`);
		else if (replay.wholly || replay.proof[i] === -2) lines.push(`arrived after ${duration(replay.reached[i] - replay.left[i])}`);
		else if (isData(row) && space(row) > 0) lines.push("nothing tells whether it arrived");
		for (const e of replay.evidence.get(row[NUMBER]) || []) lines.push(`${e.id}: ${e.what}`);
	}
	box.textContent = lines.join("\n");
}

// ---- Time: the whole connection, and sequence numbers ----

function drawTime() {
	const width = $("time").clientWidth - 28, key = `${shown} ${width} ${way} ${colors.bg}`;
	if (!plotted || plotted.key !== key) plotted = { key, images: [scrub(width), plot(width)] };
	const ratio = window.devicePixelRatio || 1, x = axis.x(replay.left[visible[cursor] ?? 0]) * (width - 2);
	["scrub", "plot"].forEach((id, i) => {
		const pen = sized($(id), width, HIGH[i]);
		pen.setTransform(1, 0, 0, 1, 0, 0);
		pen.drawImage(plotted.images[i], 0, 0);
		pen.setTransform(ratio, 0, 0, ratio, 0, 0);
		pen.fillStyle = colors["cursor-line"];
		pen.fillRect(x, 0, 1.5, HIGH[i]);
	});
}
const HIGH = [36, 108];

// How much happened when, and what was notable.
function scrub(width) {
	const canvas = document.createElement("canvas"), pen = sized(canvas, width, HIGH[0]);
	const bins = Math.max(1, Math.floor(width / 3)), count = [new Float64Array(bins), new Float64Array(bins)], marks = new Map();
	pen.fillStyle = colors.panel;
	pen.fillRect(0, 0, width, HIGH[0]);
	visible.forEach(i => {
		const row = replay.rows[i];
		if (!isPacket(row) || row[FROM] < 0) return;
		const bin = Math.min(bins - 1, Math.floor(axis.x(replay.left[i]) * bins));
		count[row[FROM]][bin] += 1;
		if (!isData(row)) { if (replay.lost[i] !== null) marks.set(bin, colors.again); }
		else if (has(row, "R")) marks.set(bin, colors.reset);
		else if (replay.lost[i] !== null || row[BITS] & AGAIN && space(row) > 0) marks.set(bin, colors.again);
		else if (row[WIN] === 0 && has(row, ".")) marks.set(bin, colors.zero);
	});
	const most = Math.max(1, ...count[0], ...count[1]);
	for (const side of [0, 1]) {
		pen.fillStyle = side ? colors.in : colors.out;
		pen.globalAlpha = 0.55;
		count[side].forEach((n, bin) => { if (n) { const high = Math.max(1.5, 14 * Math.sqrt(n / most)); pen.fillRect(bin * width / bins, side ? 18.5 : 17.5 - high, width / bins - 0.6, high); } });
	}
	pen.globalAlpha = 1;
	for (const [bin, tint] of marks) { pen.fillStyle = tint; pen.fillRect(bin * width / bins, 1, 2, 34); }
	pen.font = mono(9.5);
	pen.textAlign = "center";
	pen.textBaseline = "middle";
	for (const [a, b, lasts] of axis.pauses) {
		pen.fillStyle = colors.bg;
		pen.fillRect(a * width, 0, (b - a) * width, HIGH[0]);
		pen.fillStyle = colors.muted;
		pen.fillText("⋯", (a + b) / 2 * width, 12);
		pen.fillText(duration(lasts), (a + b) / 2 * width, 26, (b - a) * width);
	}
	return canvas;
}

// As tcptrace draws it: sent ranges, what is acknowledged, and the edge of the window.
function plot(width) {
	const high = HIGH[1], canvas = document.createElement("canvas"), pen = sized(canvas, width, high), c = data.connections[shown];
	pen.fillStyle = colors.bg;
	pen.fillRect(0, 0, width, high);
	let low = Infinity, top = -Infinity;
	const sent = [], acks = [], sacks = [];
	replay.rows.forEach((row, i) => {
		if (!isData(row) || row[FROM] < 0 || has(row, "R") || row[BITS] & (FORGED | OLD_SEQ)) return;
		if (row[FROM] === way) {
			if (space(row)) { sent.push([replay.left[i], replay.seq[i], replay.seq[i] + space(row), row[BITS] & AGAIN || replay.lost[i] !== null]); low = Math.min(low, replay.seq[i]); top = Math.max(top, replay.seq[i] + space(row)); }
		} else if (has(row, ".") && !(row[BITS] & OLD_ACK)) {
			const time = replay.reached[i] ?? replay.left[i];
			acks.push([time, replay.ack[i], replay.ack[i] + replay.window(row, row[FROM])]);
			for (const [a, b] of row[OPTS].s || []) sacks.push([time, unwrap(a, replay.ack[i]), unwrap(b, replay.ack[i])]);
		}
	});
	if (low === Infinity) { low = 0; top = 1; }
	const span = Math.max(1, top - low), limit = top + span * 0.25;
	const x = t => axis.x(t) * (width - 2), y = n => high - 6 - (Math.min(n, limit) - low) / (span * 1.25) * (high - 28);
	const stairs = (index, tint) => {
		pen.strokeStyle = tint;
		pen.lineWidth = 1;
		pen.beginPath();
		let before = null;
		for (const one of acks) { const [px, py] = [x(one[0]), y(one[index])]; if (before === null) pen.moveTo(px, py); else { pen.lineTo(px, before); pen.lineTo(px, py); } before = py; }
		pen.stroke();
	};
	stairs(2, colors.edge);
	stairs(1, colors.in);
	const ticks = (list, tint, wide) => { pen.fillStyle = tint; for (const [t, a, b] of list) pen.fillRect(x(t), y(b), wide, Math.max(1.5, y(a) - y(b))); };
	ticks(sacks, colors.sack, 1.2);
	ticks(sent.filter(s => !s[3]), colors.out, 1.5);
	ticks(sent.filter(s => s[3]), colors.again, 2);
	pen.font = SANS;
	pen.textBaseline = "top";
	let at = 6;
	for (const [text, tint] of [[`bytes from ${c.hosts[way]}: sent`, colors.out], ["again or lost", colors.again], ["acknowledged", colors.in], ["SACKed", colors.sack], ["edge of the window", colors.edge]]) {
		pen.fillStyle = tint;
		pen.fillRect(at, 9, 9, 3);
		pen.fillStyle = colors.muted;
		pen.fillText(text, at + 13, 4);
		at += pen.measureText(text).width + 30;
	}
	return canvas;
}

// ---- Findings ----

function drawFindings() {
	const all = data.connections[shown].findings || [];
	const whole = data.findings || [];
	const list = [...all, ...whole];
	$("findings").classList.toggle("none", !list.length);
	if (!list.length) { $("found").replaceChildren(element("div", data.connections[shown].knows === "stack" ? "Nothing was lost or rewritten." : "No finding: the connection is sound.", "sound")); return; }
	$("found").replaceChildren(...list.map((f, i) => {
		const row = element("div", undefined, "found");
		row.setAttribute("role", "option");
		row.setAttribute("aria-selected", i === chosen);
		row.append(element("span", f.severity, f.severity), element("span", f.id), element("span", f.confidence || ""), element("span", f.text));
		row.onclick = () => choose(i);
		return row;
	}));
	drawFinding(list[Math.max(chosen, 0)]);
}

function drawFinding(f) {
	const lines = [], line = (head, text) => { const made = element("p"); if (head) made.append(element("b", head + " ")); made.append(text); lines.push(made); };
	line("", f.text);
	for (const because of f.because || []) line("Because:", because);
	for (const other of f.alternatives || []) line(`Or ${other.id}:`, `to tell, ${other.to_tell}`);
	for (const advice of f.advice || []) if (advice.text) line("Do:", advice.text);
	if ((f.cites || []).length) line("See:", f.cites.join(", "));
	$("finding").replaceChildren(...lines);
}

function choose(index) {
	const list = [...(data.connections[shown].findings || []), ...(data.findings || [])];
	if (!list.length) return;
	const again = chosen === index;
	chosen = (index + list.length) % list.length;
	drawFindings();
	const packets = (list[chosen].evidence || []).map(e => e.packet);
	const places = packets.map(packet => replay.rows.findIndex(row => isPacket(row) && row[NUMBER] === packet)).filter(i => i >= 0).map(i => placeOf[i]);
	if (places.length) move(again ? places[(places.indexOf(cursor) + 1) % places.length] : places[0]);
	$("found").children[chosen]?.scrollIntoView({ block: "nearest" });
}

// ---- The cursor ----

function move(to, quiet) {
	if (!visible.length) return;
	cursor = Math.min(visible.length - 1, Math.max(0, to));
	const view = $("view"), y = tops[cursor];
	if (y < view.scrollTop + ROW * 2) view.scrollTop = y - ROW * 2;
	else if (y > view.scrollTop + view.clientHeight - ROW * 2) view.scrollTop = y - view.clientHeight + ROW * 2;
	drawBlocks();
	drawDetails();
	draw();
	drawTime();
	if (!quiet) link();
}

let linking = 0;
function link() {
	if (linking) return;
	linking = setTimeout(() => {
		linking = 0;
		const row = replay.rows[visible[cursor]];
		const number = isPacket(row) ? row[NUMBER] : 0;
		const hash = `#${addition ? addition.link() : ""}c=${shown + 1}` + (number ? `&p=${number}` : "");
		try { history.replaceState(null, "", hash); } catch { location.hash = hash; }
	}, 150);
}

function follow(hash) {
	const wanted = Object.fromEntries(hash.replace(/^#/, "").split("&").map(part => part.split("=")));
	const c = Number(wanted.c), p = Number(wanted.p);
	if (wanted.c !== undefined && !(c >= 1 && c <= data.connections.length)) { say(`#c=${wanted.c}: expected a number from 1 to ${data.connections.length}`); return false; }
	if (c && c - 1 !== shown || !replay) open((c || 1) - 1, p);
	else if (p) { const i = replay.rows.findIndex(row => isPacket(row) && row[NUMBER] === p); if (i >= 0) move(placeOf[i], true); else say(`#${p}: not on this page`); }
	return true;
}

// `flags:R`, `#120`, `again`, `lost`, `zero`, or any text of a row.
function matches(query) {
	const wanted = query.trim().toLowerCase();
	if (wanted.startsWith("#")) return i => isPacket(replay.rows[i]) && replay.rows[i][NUMBER] === Number(wanted.slice(1));
	if (wanted.startsWith("flags:")) { const flags = [...wanted.slice(6).toUpperCase()]; return i => isData(replay.rows[i]) && flags.every(flag => has(replay.rows[i], flag === "A" ? "." : flag)); }
	if (wanted === "again") return i => isData(replay.rows[i]) && (replay.rows[i][BITS] & AGAIN) !== 0 && space(replay.rows[i]) > 0;
	if (wanted === "lost") return i => replay.lost[i] !== null;
	if (wanted === "zero") return i => isData(replay.rows[i]) && replay.rows[i][WIN] === 0 && !has(replay.rows[i], "R");
	return i => (rowText(i) + " " + remark(i)).toLowerCase().includes(wanted);
}

function search(step = 1) {
	const query = $("search").value;
	if (!query.trim()) return;
	const fits = matches(query), n = visible.length;
	for (let k = 1; k <= n; k++) {
		const at = (cursor + step * k + n * 2) % n;
		if (fits(visible[at])) { say(""); move(at); return; }
	}
	say(`${query}: nothing fits`);
}

function play() {
	if (playing) { cancelAnimationFrame(playing.frame); playing = null; say(""); return; }
	if (cursor >= visible.length - 1) move(0);
	playing = { time: replay.left[visible[cursor]], last: performance.now(), frame: 0 };
	const tick = now => {
		if (!playing) return;
		playing.time += (now - playing.last) * 1e6 * speed;
		playing.last = now;
		let to = cursor;
		while (to + 1 < visible.length && replay.left[visible[to + 1]] <= playing.time) to++;
		// Nobody waits through a pause.
		if (to === cursor && to + 1 < visible.length && replay.left[visible[to + 1]] - playing.time > 1.5e9 * speed) playing.time = replay.left[visible[to + 1]] - 1e8 * speed;
		if (to !== cursor) move(to);
		say(`playing × ${speed}`);
		if (to >= visible.length - 1) { playing = null; say(""); return; }
		playing.frame = requestAnimationFrame(tick);
	};
	playing.frame = requestAnimationFrame(tick);
}

const SHORTCUTS = [
	["← → or ↑ ↓", "the event before, the next"], ["Shift + ← →", "the finding before, the next"], ["Page Up, Page Down, Home, End", "further"], ["[ ]", "the connection before, the next"],
	["Space", "play, or stop"], ["+ −", "faster, slower: × 0.1 to × 1000"], ["/", "search: flags:R, #120, again, lost, zero, or any text; n and N go on"], ["e", "details of the segment"],
	["t", "time as rows, or as it passed"], ["d", "the other direction in the plot"], ["f", "filter the connections"], ["?", "this list"],
];

function key(event) {
	if (event.ctrlKey || event.metaKey || event.altKey || $("help").open) return;
	const typing = /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName);
	if (typing) {
		if (event.key === "Escape") { event.target.blur(); $("view").focus(); }
		if (event.key === "Enter" && event.target.id === "search") search(event.shiftKey ? -1 : 1);
		return;
	}
	const page = Math.max(1, Math.floor($("view").clientHeight / ROW) - 2), many = data.connections.length;
	const doing = {
		ArrowRight: () => event.shiftKey ? choose(chosen + 1) : move(cursor + 1), ArrowLeft: () => event.shiftKey ? choose(chosen < 0 ? -1 : chosen - 1) : move(cursor - 1),
		ArrowDown: () => move(cursor + 1), ArrowUp: () => move(cursor - 1), PageDown: () => move(cursor + page), PageUp: () => move(cursor - page),
		Home: () => move(0), End: () => move(visible.length - 1), "]": () => open((shown + 1) % many), "[": () => open((shown + many - 1) % many),
		" ": () => event.target.tagName === "BUTTON" ? null : play(), "+": () => { speed = Math.min(1000, speed * 10); say(`× ${speed}`); }, "-": () => { speed = Math.max(0.1, speed / 10); say(`× ${speed}`); },
		"/": () => $("search").focus(), n: () => search(1), N: () => search(-1), f: () => $("filter").focus(), e: () => { $("details").hidden = !$("details").hidden; drawDetails(); draw(); },
		t: () => { linear = !linear; place(); move(cursor, true); }, d: () => { way = 1 - way; plotted = null; drawTime(); }, "?": () => $("keys").click(),
	}[event.key];
	if (!doing || event.key === " " && event.target.tagName === "BUTTON") return;
	event.preventDefault();
	doing();
}

function pointers() {
	$("view").addEventListener("scroll", () => requestAnimationFrame(draw), { passive: true });
	$("view").addEventListener("click", event => {
		const y = event.clientY - $("view").getBoundingClientRect().top + $("view").scrollTop;
		const i = firstBelow(y);
		move(i > 0 && (i === tops.length || y - tops[i - 1] < tops[i] - y) ? i - 1 : i);
	});
	for (const id of ["scrub", "plot"]) {
		const go = event => {
			const box = $(id).getBoundingClientRect(), time = axis.t(Math.min(1, Math.max(0, (event.clientX - box.left) / box.width)));
			let low = 0, high = visible.length;
			while (low < high) { const mid = (low + high) >> 1; if (replay.left[visible[mid]] < time) low = mid + 1; else high = mid; }
			move(low);
		};
		$(id).addEventListener("pointerdown", event => { $(id).setPointerCapture(event.pointerId); go(event); });
		$(id).addEventListener("pointermove", event => { if (event.buttons) go(event); });
	}
	$("filter").addEventListener("input", drawList);
	$("theme").onclick = () => dress(document.documentElement.dataset.theme === "dark" ? "light" : "dark");
	const system = matchMedia("(prefers-color-scheme: dark)");
	system.addEventListener("change", () => dress(system.matches ? "dark" : "light"));
	dress(system.matches ? "dark" : "light");
	$("keys").onclick = () => $("help").showModal();
	$("shortcuts").append(...SHORTCUTS.flatMap(([keys, what]) => [element("dt", keys), element("dd", what)]));
	document.addEventListener("keydown", key);
	window.addEventListener("resize", () => { plotted = null; move(cursor, true); });
	window.addEventListener("hashchange", () => { if (location.hash === "#selftest") selftest(); else follow(location.hash); });
}

// Shows other data in the same page.
function show(next) {
	data = next;
	shown = 0;
	replay = null;
	visible = [];
	$("about").textContent = data.about || "";
	$("about").title = data.about || "";
	drawList();
	if (!data.connections.length) { say("No connection."); return; }
	if (!follow(location.hash)) open(0);
}

async function begin() {
	try {
		const text = $("data").textContent;
		document.documentElement.className = "";
		pointers();
		show(await decode(text));
		if (addition) await addition.begin();
		document.documentElement.dataset.ready = "yes";
		if (location.hash === "#selftest") await selftest();
	} catch (error) {
		fail(error);
		document.documentElement.dataset.selftest = String(error);
	}
}

// ---- The page judges itself: `data-selftest` of the root is `ok`, or what is wrong ----

async function selftest() {
	const check = (holds, what) => { if (!holds) throw new Error(what); };
	const press = (name, more = {}) => document.dispatchEvent(new KeyboardEvent("keydown", { key: name, bubbles: true, ...more }));
	try {
		check(data.connections.length > 0, "no connection");
		for (let c = 0; c < Math.min(data.connections.length, 5); c++) {
			open(c);
			check(visible.length > 0, `connection ${c + 1} has no row`);
			let una = -Infinity;
			for (const i of visible.filter((_, n) => n % Math.ceil(visible.length / 200) === 0)) {
				const [end] = replay.at(i);
				if (isData(replay.rows[i]) && has(replay.rows[i], "S") && replay.rows[i][FROM] === 0) una = -Infinity;
				check(end.una === null || end.una >= una, `SND.UNA goes back at row ${i}`);
				check(end.una === null || end.nxt >= end.una, `SND.NXT is below SND.UNA at row ${i}`);
				una = end.una ?? una;
			}
			for (let n = 1; n < visible.length; n++) check(tops[n] >= tops[n - 1], "rows are out of order");
		}
		open(0);
		press("End");
		check(cursor === visible.length - 1, "End does not go to the end");
		press("Home");
		check(cursor === 0, "Home does not go to the beginning");
		if (visible.length > 1) { press("ArrowRight"); check(cursor === 1, "the arrow key does not move"); }
		const numbered = visible.filter(i => isPacket(replay.rows[i]) && replay.rows[i][NUMBER]);
		const target = numbered[numbered.length - 1];
		if (target !== undefined) {
			$("search").value = `#${replay.rows[target][NUMBER]}`;
			search();
			check(visible[cursor] === target, "a search for a number does not find it");
			follow(`#c=1&p=${replay.rows[numbered[0]][NUMBER]}`);
			check(visible[cursor] === numbered[0], "a link does not lead to its packet");
		}
		$("search").value = "";
		const found = data.connections[0].findings || [];
		if (found.length) { press("ArrowRight", { shiftKey: true }); check(chosen === 0, "the key for findings does not choose one"); }
		press("t");
		check(linear, "the axis does not change");
		press("t");
		press("e");
		check(!$("details").hidden && $("details").textContent.length > 0, "no details");
		press("e");
		const pen = $("canvas").getContext("2d"), seen = new Set(pen.getImageData(0, 0, $("canvas").width, $("canvas").height).data.filter((_, n) => n % 4 === 0));
		check(seen.size > 3, "the ladder is empty");
		check($("fields").children.length > 10, "no control blocks");
		check(performance.getEntriesByType("resource").length === 0, "the page loads something");
		const steps = Math.min(visible.length, 200), from = performance.now();
		for (let n = 0; n < steps; n++) move(Math.floor(n * visible.length / steps), true);
		document.documentElement.dataset.step = ((performance.now() - from) / steps).toFixed(2);
		document.documentElement.dataset.rows = data.connections.reduce((sum, c) => sum + c.rows.length, 0);
		move(0, true);
		if (addition) await addition.selftest(check);
		document.documentElement.dataset.selftest = "ok";
	} catch (error) {
		document.documentElement.dataset.selftest = error.message;
	}
}

begin();
