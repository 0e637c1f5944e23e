// Command zitadel runs the example server of github.com/zitadel/oidc as its authors wrote it. What the tests need beside
// it is below /test: a client, and a person who agrees.
//
//	PORT=… zitadel
package main

import (
	"encoding/json"
	"log"
	"log/slog"
	"net/http"
	"os"
	"slices"
	"sync"

	"github.com/zitadel/oidc/v3/example/server/exampleop"
	"github.com/zitadel/oidc/v3/example/server/storage"
)

type client struct {
	ID           string   `json:"client_id"`
	Secret       string   `json:"client_secret"`
	RedirectURIs []string `json:"redirect_uris"`
	GrantTypes   []string `json:"grant_types"`
}

// The people that the example knows, by the names that the tests have for them.
var people = map[string][2]string{
	"ann": {"id1", "test-user@127.0.0.1"},
	"bob": {"id2", "test-user2"},
}

func main() {
	address := "127.0.0.1:" + os.Getenv("PORT")
	issuer := "http://" + address
	store := storage.NewStorage(storage.NewUserStore(issuer))
	logger := slog.New(slog.NewTextHandler(os.Stderr, nil))
	server := exampleop.SetupServer(issuer, store, logger, false)

	// The example's clients are a plain map.
	var lock sync.RWMutex
	mux := http.NewServeMux()
	mux.HandleFunc("PUT /test/client", func(w http.ResponseWriter, r *http.Request) {
		var asked client
		if err := json.NewDecoder(r.Body).Decode(&asked); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		lock.Lock()
		defer lock.Unlock()
		if slices.Contains(asked.GrantTypes, "authorization_code") {
			storage.RegisterClients(storage.WebClient(asked.ID, asked.Secret, asked.RedirectURIs...))
		} else {
			storage.RegisterClients(storage.DeviceClient(asked.ID, asked.Secret))
		}
		w.WriteHeader(http.StatusNoContent)
	})
	mux.HandleFunc("POST /test/device", func(w http.ResponseWriter, r *http.Request) {
		person := people[r.FormValue("person")]
		if err := store.CompleteDeviceAuthorization(r.Context(), r.FormValue("user_code"), person[0]); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		w.WriteHeader(http.StatusNoContent)
	})
	mux.HandleFunc("GET /login/username", func(w http.ResponseWriter, r *http.Request) {
		cookie, err := r.Cookie("person")
		if err != nil {
			http.Error(w, "nobody signed in", http.StatusForbidden)
			return
		}
		id := r.FormValue("authRequestID")
		if err := store.CheckUsernamePassword(people[cookie.Value][1], "verysecure", id); err != nil {
			http.Error(w, err.Error(), http.StatusForbidden)
			return
		}
		http.Redirect(w, r, "/auth/callback?id="+id, http.StatusFound)
	})
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		lock.RLock()
		defer lock.RUnlock()
		server.ServeHTTP(w, r)
	})
	log.Fatal(http.ListenAndServe(address, mux))
}
