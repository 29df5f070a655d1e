// Names and hashes of the models that duckserve brings itself: the words that the registry (which lists them) and
// the engines (which fetch and run them) have in common.

export const MINILM_ID = 'embedded/all-minilm-l6-v2';
export const TINYLLAMA_ID = 'embedded/tinyllama-1.1b-chat';
export const STATIC_256_ID = 'embedded/static-256';

/** SHA-256 of the main file: the identity of the model, wherever its bytes came from. */
export const MINILM_SHA256 = 'afdb6f1a0e45b715d0bb9b11772f032c399babd23bfc31fed1c170afc848bdb1';
export const TINYLLAMA_SHA256 = '9ee11adf737960ff06123d5c4fba24d12c5b05ba460a7afa88950fbf2b61add0';

/** Endpoints that serve them, without configuration. */
export const MINILM_ENDPOINT = 'embedded-all-minilm-l6-v2';
export const TINYLLAMA_ENDPOINT = 'embedded-tinyllama-1-1b-chat';
export const STATIC_256_ENDPOINT = 'embedded-static-256';
