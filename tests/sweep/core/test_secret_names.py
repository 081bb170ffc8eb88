"""The usual names of variables that hold secrets, and names that look alike."""

from __future__ import annotations

import pytest

from sweep.core.secret_names import is_secret_name

SECRET = """
HF_TOKEN HUGGING_FACE_HUB_TOKEN HUGGINGFACE_API_KEY WANDB_API_KEY COMET_API_KEY NEPTUNE_API_TOKEN OPENAI_API_KEY
ANTHROPIC_API_KEY AWS_SECRET_ACCESS_KEY AWS_SESSION_TOKEN AZURE_STORAGE_KEY AZURE_CLIENT_SECRET AZURE_OPENAI_API_KEY
GOOGLE_API_KEY GITHUB_TOKEN GH_TOKEN GITHUB_PAT GITLAB_TOKEN GITLAB_PRIVATE_TOKEN CI_JOB_TOKEN NPM_TOKEN PYPI_TOKEN
TWINE_PASSWORD DOCKER_PASSWORD PGPASSWORD POSTGRES_PASSWORD MYSQL_PWD MYSQL_ROOT_PASSWORD REDIS_PASSWORD DB_PASS
DB_PASSWORD DATABASE_PASSWORD MONGO_PASS SMTP_PASS SMTP_PASSWORD MAIL_PASSWORD SECRET_KEY DJANGO_SECRET_KEY
MLFLOW_FLASK_SERVER_SECRET_KEY MLFLOW_TRACKING_PASSWORD MLFLOW_TRACKING_TOKEN KAGGLE_KEY SENTRY_DSN
SLACK_WEBHOOK_URL SLACK_BOT_TOKEN SLACK_TOKEN DISCORD_WEBHOOK TELEGRAM_BOT_TOKEN STRIPE_SECRET_KEY TWILIO_AUTH_TOKEN
SENDGRID_API_KEY MINIO_SECRET_KEY S3_SECRET_KEY FERNET_KEY AIRFLOW__CORE__FERNET_KEY JWT_SECRET JWT_TOKEN
SESSION_COOKIE OAUTH_CLIENT_SECRET SSH_PRIVATE_KEY SIGNING_KEY ENCRYPTION_KEY VAULT_TOKEN ANSIBLE_VAULT_PASSWORD
REPLICATE_API_TOKEN COHERE_API_KEY api-key api_key apiKey apikey x-api-key clientSecret client_secret accessToken
access_token refresh_token auth_token token hub_token password passwd db_pass db_password private_key secret
credentials authorization api_keys hub_tokens
"""
INNOCENT = """
pad_token eos_token bos_token unk_token sep_token cls_token mask_token max_new_tokens tokenizer tokenizer_class
tokens_per_second token_accuracy TOKENIZERS_PARALLELISM num_tokens special_tokens pad_token_id image_token
next_token new_tokens max_tokens tokens sort_key cache_key primary_key foreign_key key keys num_key_value_heads
key_value_states keyboard monkey author authors pass passes forward_pass path pattern PATH PWD OLDPWD HOME LANG
CUDA_VISIBLE_DEVICES PYTHONHASHSEED secretary compass bypass learning_rate score seed study.name variant setting
SSH_AUTH_SOCK AWS_ACCESS_KEY_ID PRIMARY_KEY GROUP_KEY KEY patience compat
"""


@pytest.mark.parametrize("name", SECRET.split())
def test_a_secret_s_name(name: str):
    assert is_secret_name(name)


@pytest.mark.parametrize("name", INNOCENT.split())
def test_a_name_that_looks_alike(name: str):
    assert not is_secret_name(name)
