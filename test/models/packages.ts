// The Python libraries whose models are tried, at the versions that docs/models-tested.md names.

export const MODEL_PACKAGES: Readonly<Record<string, string>> = {
  lightgbm: '4.7.0',
  'mlflow-skinny': '3.17.2',
  onnx: '1.23.2',
  onnxmltools: '1.16.0',
  onnxruntime: '1.32.0',
  pandas: '3.1.1',
  pyarrow: '26.0.1',
  'scikit-learn': '1.9.1',
  skl2onnx: '1.20.0',
  skops: '0.16.0',
  'xgboost-cpu': '3.2.0',
};
