// Environment variables for programs that are started: only those named here, never all of the server's, which hold
// its keys. What a model needs besides is set on its served entity.
const ALWAYS = [
  'PATH',
  'HOME',
  'USER',
  'LOGNAME',
  'LANG',
  'LANGUAGE',
  'TZ',
  'TMPDIR',
  'TMP',
  'TEMP',
  'SHELL',
  'LD_LIBRARY_PATH',
  'DYLD_LIBRARY_PATH',
  'SSL_CERT_FILE',
  'SSL_CERT_DIR',
  'REQUESTS_CA_BUNDLE',
  'CURL_CA_BUNDLE',
  'PYENV_ROOT',
  'SYSTEMROOT',
];
const ALWAYS_PREFIXES = ['LC_', 'OMP_', 'MKL_', 'OPENBLAS_', 'CUDA_', 'NVIDIA_', 'ROCR_', 'HIP_', 'XLA_'];
/** For pip only: indexes and proxies may carry a password in their address. */
const TOOLS = /^(PIP_.*|(HTTP|HTTPS|ALL|NO)_PROXY)$/i;
const THREADS = [
  'OMP_NUM_THREADS',
  'OPENBLAS_NUM_THREADS',
  'MKL_NUM_THREADS',
  'NUMEXPR_NUM_THREADS',
  'VECLIB_MAXIMUM_THREADS',
];

type Variables = Readonly<Record<string, string | undefined>>;

/** For pip and for looking at interpreters. */
export function toolEnvironment(server: Variables): Record<string, string> {
  return pick(server, (name) => isAllowed(name) || TOOLS.test(name));
}

export interface ModelEnvironment {
  readonly variables: Record<string, string>;
  /** What came out of references: these values must not be logged. */
  readonly secrets: readonly string[];
}

/** For the process of a model. `own`: of its served entity; throws what `resolveSecret` throws. */
export function modelEnvironment(
  server: Variables,
  own: Readonly<Record<string, string>>,
  resolveSecret: (reference: string) => string,
  threads?: number,
): ModelEnvironment {
  const variables: Record<string, string> = {
    ...pick(server, isAllowed),
    // What it prints is seen at once, and nothing is written beside the files of the model.
    PYTHONUNBUFFERED: '1',
    PYTHONDONTWRITEBYTECODE: '1',
    PYTHONNOUSERSITE: '1',
    PYTHONIOENCODING: 'utf-8',
    ...(threads === undefined ? {} : Object.fromEntries(THREADS.map((name) => [name, String(threads)]))),
  };
  const secrets: string[] = [];
  for (const [name, value] of Object.entries(own)) {
    const resolved = resolveSecret(value);
    variables[name] = resolved;
    if (resolved !== value) secrets.push(resolved);
  }
  return { variables, secrets };
}

function isAllowed(name: string): boolean {
  return ALWAYS.includes(name) || ALWAYS_PREFIXES.some((prefix) => name.startsWith(prefix));
}

function pick(server: Variables, isTaken: (name: string) => boolean): Record<string, string> {
  const taken: Record<string, string> = {};
  for (const [name, value] of Object.entries(server))
    if (value !== undefined && isTaken(name)) taken[name] = value;
  return taken;
}
