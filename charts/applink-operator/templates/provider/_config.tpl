{{/* The provider's settings, as its environment. */}}
{{- define "applink-operator.providerConfig" -}}
{{- with .Values.provider -}}
APPLINK_PROVIDER_ACCESS_TOKEN_LIFETIME: {{ quote .accessTokenLifetime }}
APPLINK_PROVIDER_REFRESH_TOKEN_LIFETIME: {{ quote .refreshTokenLifetime }}
APPLINK_PROVIDER_REFRESH_GRACE: {{ quote .refreshGrace }}
APPLINK_PROVIDER_CLIENT_TOKENS_PER_SECOND: {{ int64 .clientTokensPerSecond | quote }}
APPLINK_PROVIDER_CLIENT_LIVE_TOKENS: {{ int64 .clientLiveTokens | quote }}
{{- with .trustedProxies }}
APPLINK_PROVIDER_TRUSTED_PROXIES: {{ join "," . | quote }}
{{- end }}
{{- if .registration.enabled }}
APPLINK_PROVIDER_REGISTRATION: "true"
{{- end }}
{{- with .scopes }}
APPLINK_PROVIDER_SCOPES: {{ join "," . | quote }}
{{- end }}
{{- end }}
{{- end -}}
