// Writes the same request in three forms: bytes for fetch, a curl command, and Python with tritonclient.
// inputs: [{name, datatype, value}], with values as in fields.js.
import { byteSize } from "./fields.js";

const NOT_IN_JSON = ["FP16", "BF16"];
const CLASSES = 5;

// Returns the outputs to request. Empty if all of them are to be sent as JSON in full, which is the default.
export function wantedOutputs(model) {
  const special = model.outputs.some((output) => model.labelled.includes(output.name) || NOT_IN_JSON.includes(output.datatype));
  return special ? model.outputs.map((output) => ({
    name: output.name,
    classes: model.labelled.includes(output.name) ? CLASSES : 0,
    binary: NOT_IN_JSON.includes(output.datatype) && !model.labelled.includes(output.name),
  })) : [];
}

function head(inputs, outputs, place) {
  const tensors = inputs.map(({ name, datatype, value }) => {
    const opening = `{"name":${JSON.stringify(name)},"shape":${JSON.stringify(value.shape)},"datatype":"${datatype}",`;
    if (value.data !== undefined) return `${opening}"data":[${value.data}]}`;
    return `${opening}"parameters":{"binary_data_size":${binarySize(datatype, value)}}}`;
  });
  const wanted = outputs.map(({ name, classes, binary }) => {
    const parameters = { ...(classes && { classification: classes }), ...(binary && { binary_data: true }) };
    return JSON.stringify(Object.keys(parameters).length ? { name, parameters } : { name });
  });
  const parameters = place ? `"parameters":${JSON.stringify(place)},` : "";
  return `{${parameters}"inputs":[${tensors.join(",")}]${wanted.length ? `,"outputs":[${wanted.join(",")}]` : ""}}`;
}

const isBinary = (value) => value.data === undefined;
const binarySize = (datatype, value) => (value.file ? value.file.size + 4 : byteSize(datatype, value.shape));
const littleEndian = (size) => [0, 8, 16, 24].map((shift) => (size >>> shift) & 255);

// Returns {headers, body} for fetch. place: {sequence_id, sequence_start} for a model with state, otherwise null.
export function forFetch(inputs, outputs, place) {
  const text = head(inputs, outputs, place);
  const binary = inputs.filter(({ value }) => isBinary(value));
  if (!binary.length) return { headers: {}, body: text };
  const parts = binary.flatMap(({ datatype, value }) => {
    if (value.file) return [new Uint8Array(littleEndian(value.file.size)), value.file];
    return [value.raw || new Uint8Array(binarySize(datatype, value))];
  });
  return {
    headers: { "Inference-Header-Content-Length": String(new TextEncoder().encode(text).length) },
    body: new Blob([text, ...parts]),
  };
}

// -- a shell ---------------------------------------------------------------------------------------------------------

const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;
const octal = (bytes) => bytes.map((byte) => `\\${byte.toString(8).padStart(3, "0")}`).join("");

// keyed: whether the server asks for a key. The code reads it from the environment, so that no key is shown.
const withKey = (keyed) => (keyed ? ' -H "Authorization: Bearer $HEADWAY_KEY"' : "");

export function forShell(url, inputs, outputs, place, keyed) {
  const text = head(inputs, outputs, place);
  const into = outputs.some((output) => output.binary) ? " -o answer.bin" : "";
  const binary = inputs.filter(({ value }) => isBinary(value));
  if (!binary.length) return `curl -s ${url}${into}${withKey(keyed)} -d ${quoted(text)}`;
  const parts = binary.map(({ datatype, value }) => {
    if (value.file) return `printf '${octal(littleEndian(value.file.size))}'; cat ${quoted(value.file.name)}`;
    return value.raw ? `cat ${quoted(value.raw.name)}` : `head -c ${binarySize(datatype, value)} /dev/zero`;
  });
  const length = new TextEncoder().encode(text).length;
  return `(printf '%s' ${quoted(text)}\n ${parts.join("; ")}) |\n  curl -s ${url}${into}${withKey(keyed)} \\\n` +
    `  -H 'Inference-Header-Content-Length: ${length}' --data-binary @-`;
}

// -- generating models: a flat JSON object as request, events as answers ----------------------------------------------

// Returns {text}, the body for generate_stream, or {missing}, the reason why there is none.
export function generateBody(inputs) {
  const odd = inputs.find(({ value }) => isBinary(value));
  if (odd) return { missing: `${odd.name} must be a text or numbers for this model` };
  const fields = inputs.map(({ name, value }) => {
    const isOne = value.shape.every((size) => size === 1);
    return `${JSON.stringify(name)}: ${isOne ? value.data : `[${value.data}]`}`;
  });
  return { text: `{${fields.join(", ")}}` };
}

export const generateForShell = (url, body, keyed) => `curl -sN ${url}${withKey(keyed)} -d ${quoted(body)}`;

export function generateForPython(url, body, keyed) {
  return ["import json", ...(keyed ? ["import os"] : []), "import urllib.request", "",
    `request = urllib.request.Request(${JSON.stringify(url)}, ${JSON.stringify(body)}.encode())`,
    ...(keyed ? [`request.add_header("Authorization", ${KEY})`] : []),
    "with urllib.request.urlopen(request) as events:", "    for line in events:", '        if line.startswith(b"data: "):',
    "            print(json.loads(line[6:]), flush=True)"].join("\n");
}

// -- Python ----------------------------------------------------------------------------------------------------------

const NUMPY = { BOOL: "bool", INT8: "np.int8", UINT8: "np.uint8", INT16: "np.int16", UINT16: "np.uint16", INT32: "np.int32",
  UINT32: "np.uint32", INT64: "np.int64", UINT64: "np.uint64", FP16: "np.float16", FP32: "np.float32", FP64: "np.float64",
  BF16: "ml_dtypes.bfloat16" };
const KEY = '"Bearer " + os.environ["HEADWAY_KEY"]';
const KEYWORDS = new Set("False None True and as assert async await break class continue def del elif else except finally for from global if import in is lambda nonlocal not or pass raise return try while with yield client http np os answer output outputs ml_dtypes".split(" "));

export function forPython(address, isSecure, name, inputs, outputs, place, keyed) {
  const imports = ["import numpy as np", "import tritonclient.http as http"];
  if (inputs.some(({ datatype }) => datatype === "BF16")) imports.unshift("import ml_dtypes");
  if (keyed) imports.unshift("import os", "");
  const lines = [...imports, "", `client = http.InferenceServerClient(${JSON.stringify(address)}${isSecure ? ", ssl=True" : ""})`];
  const variables = inputs.map(({ name }, index) => variable(name, index));
  inputs.forEach((input, index) => {
    const it = variables[index];
    lines.push(`${it} = http.InferInput(${JSON.stringify(input.name)}, ${JSON.stringify(input.value.shape).replaceAll(",", ", ")}, "${input.datatype}")`);
    lines.push(`${it}.set_data_from_numpy(${array(input)})`);
  });
  let wanted = place ? `, sequence_id=${place.sequence_id}, sequence_start=${place.sequence_start ? "True" : "False"}` : "";
  if (keyed) wanted += `, headers={"Authorization": ${KEY}}`;
  if (outputs.length) {
    wanted += ", outputs=outputs";
    lines.push("outputs = [", ...outputs.map(({ name, classes }) =>
      `    http.InferRequestedOutput(${JSON.stringify(name)}${classes ? `, class_count=${classes}` : ""}),`), "]");
  }
  lines.push(`answer = client.infer(${JSON.stringify(name)}, [${variables.join(", ")}]${wanted})`);
  lines.push('for output in answer.get_response()["outputs"]:', '    print(output["name"], answer.as_numpy(output["name"]))');
  return lines.join("\n");
}

function array({ datatype, value }) {
  const shape = `(${value.shape.join(", ")}${value.shape.length === 1 ? "," : ""})`;
  const type = datatype === "BYTES" ? "object" : NUMPY[datatype];
  if (value.file) return `np.array([open(${JSON.stringify(value.file.name)}, "rb").read()], object).reshape${shape}`;
  if (value.raw) return `np.fromfile(${JSON.stringify(value.raw.name)}, ${type}).reshape${shape}`;
  if (isBinary(value)) return `np.zeros(${shape}, ${type})`;
  const data = datatype === "BOOL" ? value.data.replaceAll("true", "True").replaceAll("false", "False") : value.data;
  return `np.array([${datatype === "BYTES" ? data : data.replaceAll(",", ", ")}], ${type}).reshape${shape}`;
}

function variable(name, index) {
  return /^[A-Za-z_]\w*$/.test(name) && !KEYWORDS.has(name) ? name : `input_${index}`;
}
