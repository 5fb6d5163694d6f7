// The types of htm.js for `make check`, from the package that it is of; browsers get none of this.
export { default } from "htm";
