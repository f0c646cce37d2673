"""The dialects: native, wire templates, Open Inference Protocol V2, KServe V1 and MLflow scoring."""
