// A program that calls @kth/canvas-api, without knowledge of this project.
//
// The program reads one call per line from standard input, as JSON, and writes the result in one line to standard
// output: what the client returned, or the name of the exception and what the exception contains.

const write = console.log;
console.log = console.error; // The client prints a line when it is loaded.

const { createInterface } = require("node:readline");
const { CanvasApi } = require("@kth/canvas-api");

async function call({ base_url, token, method, endpoint, params, json_body }) {
    const canvas = new CanvasApi(`${base_url}/api/v1`, token ?? "");
    if (method === "GET") {
        return (await canvas.get(endpoint, params)).json;
    }
    // The client has no argument for the query of such a request.
    const query = new URLSearchParams(params).toString();
    return (await canvas.request(query ? `${endpoint}?${query}` : endpoint, method, json_body)).json;
}

async function main() {
    for await (const line of createInterface({ input: process.stdin })) {
        let result;
        try {
            result = { returned: await call(JSON.parse(line)) };
        } catch (error) {
            const { statusCode, text } = error.response ?? {};
            result = { raised: error.name, content: error.response ? [statusCode, text] : error.message };
        }
        write(JSON.stringify(result));
    }
}

main();
