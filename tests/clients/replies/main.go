// Asks golang.org/x/oauth2 for a token, and go-oidc, which stands on it, for metadata and keys, once for each case
// of a list on standard input; says on standard output what became of each.
package main

import (
	"context"
	"encoding/json"
	"net/http"
	"os"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"
)

type asked struct {
	Case string `json:"case"`
	Kind string `json:"kind"`
	URL  string `json:"url"`
	// A JWT that the keys are to verify.
	JWT string `json:"jwt"`
}

type said struct {
	Case  string `json:"case"`
	Takes bool   `json:"takes"`
	Error string `json:"error"`
}

func try(a asked) error {
	// The machine's proxy has no business on loopback.
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 30 * time.Second}
	ctx := context.WithValue(context.Background(), oauth2.HTTPClient, client)
	switch a.Kind {
	case "token":
		config := oauth2.Config{
			ClientID: "us", ClientSecret: "secret",
			Endpoint: oauth2.Endpoint{TokenURL: a.URL, AuthStyle: oauth2.AuthStyleInHeader},
		}
		_, err := config.TokenSource(ctx, &oauth2.Token{RefreshToken: "spent"}).Token()
		return err
	case "discovery":
		_, err := oidc.NewProvider(ctx, a.URL)
		return err
	default:
		_, err := oidc.NewRemoteKeySet(ctx, a.URL).VerifySignature(ctx, a.JWT)
		return err
	}
}

func main() {
	var all []asked
	if err := json.NewDecoder(os.Stdin).Decode(&all); err != nil {
		panic(err)
	}
	results := []said{}
	for _, a := range all {
		result := said{Case: a.Case, Takes: true}
		if err := try(a); err != nil {
			result.Takes, result.Error = false, err.Error()
		}
		results = append(results, result)
	}
	if err := json.NewEncoder(os.Stdout).Encode(results); err != nil {
		panic(err)
	}
}
