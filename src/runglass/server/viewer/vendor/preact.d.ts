// The types of preact.js for `make check`, from the package that it is of; browsers get none of this.
export * from "preact";
