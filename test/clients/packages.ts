// The Python clients that are tried, at the versions that docs/clients.md names.

export const PYTHON_PACKAGES: Readonly<Record<string, string>> = {
  anthropic: '2.12.0',
  'databricks-sdk': '0.156.0',
  'langchain-openai': '1.7.3',
  'mlflow-skinny': '3.17.2',
  openai: '3.54.0',
  prometheus_client: '0.26.0',
  requests: '2.34.2',
  'tritonclient[http]': '2.73.0',
};
