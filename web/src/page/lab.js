// The lab: a scenario is chosen or written, played by a worker, and shown in this page.
const lab = { catalogue: null, module: null, worker: null, stop: null };
const scenarioOf = id => lab.catalogue.scenarios.find(s => s.id === id);
const listed = text => text.split(";").map(part => part.trim()).filter(Boolean);

function option(value, text, parent) {
	const made = element("option", text);
	made.value = value;
	parent.append(made);
}

// Chooses a scenario of the catalogue, and its first profile if it does not have this one.
function pick(id, profile) {
	const scenario = scenarioOf(id);
	$("scenario").value = id;
	$("profile").replaceChildren();
	for (const name of lab.catalogue.profiles) option(name, scenario.profiles.includes(name) ? name : `${name} (not its own)`, $("profile"));
	$("profile").value = profile || scenario.profiles[0];
	$("scenario-text").value = scenario.text;
}

function asked() {
	const scenario = scenarioOf($("scenario").value), text = $("scenario-text").value;
	return {
		file: text === scenario.text ? scenario.file : "text", text, profile: $("profile").value,
		seed: $("seed").value === "" ? null : Number($("seed").value), random: $("random").checked,
		sysctls: listed($("settings").value), faults: listed($("faults").value),
	};
}

// What the worker answers. It rejects where the lab fails, and where the user stops it.
async function answered(request) {
	lab.module ??= await WebAssembly.compile(await unpacked($("module").textContent).arrayBuffer());
	lab.worker ??= new Worker(URL.createObjectURL(new Blob([$("worker").textContent], { type: "text/javascript" })));
	const { answer, error } = await new Promise((resolve, reject) => {
		lab.stop = () => { lab.worker.terminate(); lab.worker = null; reject(new Error("stopped")); };
		lab.worker.onmessage = ({ data }) => resolve(data);
		lab.worker.onerror = event => reject(new Error(event.message));
		lab.worker.postMessage({ module: lab.module, request: JSON.stringify(request) });
	}).finally(() => { lab.stop = null; });
	if (error !== undefined) throw new Error(`the lab failed: ${error}`);
	return JSON.parse(answer);
}

function outcome(lines) {
	$("outcome").replaceChildren(...lines.map(([text, className]) => element("div", text, className)));
}

function told(report) {
	const passed = report.result === "pass", seconds = report.virtual_seconds.toFixed(3);
	const head = `${report.id} ${report.title}: ${passed ? "passed" : "FAILED"}, ${seconds} s of virtual time, profile ${report.profile}, seed ${report.seed}`;
	outcome([[head, passed ? "good" : "bad"], ...(report.reason || "").split("\n").filter(Boolean).map(reason => [reason, "bad"]),
		...(report.differences || []).map(difference => ["differs from the scenario: " + difference, "differs"])]);
}

// Shows the connections of a run in the page.
function present(page) {
	if (playing) play();
	say("");
	document.title = document.querySelector("h1").textContent = page.title;
	for (const part of ["view", "time", "findings", "blocks"]) $(part).hidden = !page.connections.length;
	show(page);
	if (!page.connections.length && page.left_out) say("Too many events to be shown.");
}

async function run() {
	if (lab.stop) { lab.stop(); return; }
	$("run").textContent = "Stop";
	outcome([["playing …", ""]]);
	try {
		const answer = await answered(asked());
		if (answer.error !== undefined) { refused(answer); return; }
		const link = "#" + labLink();
		if (!location.hash.startsWith(link)) history.replaceState(null, "", link);
		present(answer.page);
		told(answer.report);
	} catch (error) {
		outcome([[error.message, "bad"]]);
	} finally {
		$("run").textContent = "Run";
	}
}

// Shows the lab's own error, and its line in the text.
function refused({ error, line }) {
	outcome([[error, "bad"]]);
	if (!line) return;
	writing(true);
	const box = $("scenario-text"), before = box.value.split("\n").slice(0, line - 1).join("\n").length + (line > 1 ? 1 : 0);
	const length = (box.value.split("\n")[line - 1] || "").length;
	box.focus();
	box.setSelectionRange(before, before + length);
	box.scrollTop = Math.max(0, (line - 4) * 18);
}

function writing(on) {
	$("editor").hidden = !on;
	document.querySelector("main").classList.toggle("writing", on);
	$("write").setAttribute("aria-expanded", on);
	if (replay) move(cursor, true);
}

// The beginning of a link. A link has no text of the user's, and no settings or faults.
function labLink() {
	const seed = Number($("seed").value) ? `&seed=${$("seed").value}` : "";
	return `s=${$("scenario").value}&profile=${$("profile").value}${seed}&`;
}

async function beginLab() {
	lab.catalogue = data.more;
	document.querySelector("main").append($("editor"));
	for (const s of lab.catalogue.scenarios) option(s.id, `${s.id}  ${s.title}`, $("scenario"));
	for (const name of lab.catalogue.settings) option(name + "=", name, $("names"));
	$("scenario").onchange = () => { pick($("scenario").value); run(); };
	$("profile").onchange = $("random").onchange = run;
	$("order").onsubmit = event => { event.preventDefault(); run(); };
	$("write").onclick = () => writing($("editor").hidden);
	document.addEventListener("keydown", event => {
		if (event.ctrlKey && event.key === "Enter") { event.preventDefault(); run(); }
		if (event.key === "s" && !event.ctrlKey && !/^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName)) { event.preventDefault(); $("scenario").focus(); }
	});
	$("shortcuts").append(...[["s", "choose a scenario"], ["Ctrl + Enter", "run"]].flatMap(([keys, what]) => [element("dt", keys), element("dd", what)]));
	pick(lab.catalogue.scenarios[0].id);
	told(lab.catalogue.report);
	const wanted = new URLSearchParams(location.hash.slice(1));
	if (!wanted.has("s")) return;
	if (!scenarioOf(wanted.get("s"))) { outcome([[`#s=${wanted.get("s")}: no such scenario`, "bad"]]); return; }
	pick(wanted.get("s"), wanted.get("profile"));
	$("seed").value = wanted.get("seed") || 0;
	await run();
}

async function testLab(check) {
	const said = () => $("outcome").textContent;
	const box = $("scenario-text");
	// The same inputs give the same packets, on this machine and on the one that made the page.
	const report = lab.catalogue.report, same = await answered(asked());
	check(same.report.trace_hash === report.trace_hash, `trace ${same.report.trace_hash}: expected ${report.trace_hash}`);
	for (const scenario of lab.catalogue.scenarios) {
		pick(scenario.id);
		await run();
		check(said().includes(": passed"), said());
		check(data.title.startsWith(scenario.id) && data.connections.length + data.left_out > 0, `${scenario.id}: no connection is shown`);
	}
	pick("H1", "linux");
	await run();
	check(replay.rows.some((_, i) => replay.lost[i] !== null), "H1: no packet is lost");
	box.value = box.value.replace("TCPSynRetrans 1", "TCPSynRetrans 2");
	await run();
	check(said().includes("FAILED") && said().includes("TCPSynRetrans 2"), "an expectation that fails is not told: " + said());
	const line = box.value.split("\n").findIndex(text => text.startsWith("fault")) + 1;
	box.value = box.value.replace("fault lose", "fault loose");
	await run();
	check(said().startsWith(`text:${line}: `), "a text that cannot be read: " + said());
	check(!$("editor").hidden && box.value.slice(box.selectionStart, box.selectionEnd).startsWith("fault loose"), "its line is not chosen");
	writing(false);
	pick("N1", "linux");
	$("faults").value = "lose C>S [S] 1; lose S>C [S.] 1";
	$("settings").value = "tcp_timestamps=0";
	await run();
	const syn = replay.rows.filter(row => isData(row) && has(row, "S"));
	check(syn.length >= 5 && syn.every(row => row[OPTS].t === undefined), "settings and faults do not act");
	$("settings").value = "tcp_timestamps=many";
	await run();
	check(said().includes("tcp_timestamps=many"), "a bad setting: " + said());
	$("settings").value = $("faults").value = "";
	const playing = run();
	lab.stop?.();
	await playing;
	pick(lab.catalogue.scenarios[0].id);
	await run();
	check(said().includes(": passed"), "nothing runs after a stop: " + said());
}

addition = { begin: beginLab, selftest: testLab, link: labLink };
