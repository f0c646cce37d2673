"""Object stores such as S3."""
