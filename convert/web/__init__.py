"""A network as a static web page: WebAssembly of the same C, the page around it, and a detector."""
