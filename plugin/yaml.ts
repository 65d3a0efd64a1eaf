/** YAML, in a file of its own so that it is loaded only by runs that need it. */
export { parse, stringify } from "yaml";
