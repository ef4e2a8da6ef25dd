// One tool call by mcporter's library: `node call.mjs CONFIG TOOL`, arguments as JSON on stdin, the raw result on stdout.
import { text } from "node:stream/consumers";
import { callOnce } from "mcporter";

const [configPath, toolName] = process.argv.slice(2);
const args = JSON.parse(await text(process.stdin));
const result = await callOnce({ server: "power", toolName, args, configPath });
process.stdout.write(JSON.stringify(result), () => process.exit(0));
