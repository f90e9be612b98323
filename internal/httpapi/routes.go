package httpapi

import (
	"net/http"

	"tallyhook/internal/access"
)

// layer is one thing that happens to every request.
type layer struct {
	name string
	wrap func(http.Handler) http.Handler
}

// layers lists what happens to every request, outermost first. The numbers are
// the contract's nine. Those that can refuse (1, 2, 4, 5, 6, 8, 9) stand in its
// order: of two reasons to refuse a request, the one with the lower number is
// answered. The two that refuse nothing, 7 and 3, stand outside of them: only so
// does the log see every answer, and does every answer have the headers, those
// of the layers 1 and 2 included.
func (s *server) layers() []layer {
	return []layer{
		{"request id, client and route", s.identify},
		{"7 access log and metrics", s.observe},
		{"recovery from a panic", s.recoverPanic},
		{"3 security headers", s.secure},
		{"1 bounded raw body", s.bound},
		{"2 HTTPS redirect", s.redirect},
		{"4 CORS", s.crossOrigin},
		{"5 rate limit", s.limit},
		{"6 guard", s.guard},
		// dispatch, then around each route: 8 public routes, 9 API key and scope
	}
}

// around lists what is wrapped around each route, outermost first.
func (s *server) around(route *Route, h http.Handler) http.Handler {
	h = s.accept(route, h)    // content type
	h = s.authorize(route, h) // 8 public routes, 9 API key and scope
	return h
}

// Class says what a route asks of its caller.
type Class string

// The classes of routes.
const (
	classPublic  Class = "public"  // nothing
	classWebhook Class = "webhook" // the token in the URL and the provider's own scheme
	classKey     Class = "key"     // any API key
	classScope   Class = "scope"   // an API key with the route's scope
	classSigned  Class = "signed"  // the same, or a Standard Webhooks signature of a source
	// classOperator asks for a key with the route's scope of the default tenant:
	// what all tenants share is its to see and to change.
	classOperator Class = "operator"
)

// Route is one row of the table as it may be shown.
type Route struct {
	Method  string
	Path    string
	Class   Class
	Scope   string // for the classes scope, signed and operator
	Tag     string
	ID      string // operation id; empty: not in the API description
	Summary string
	Status  int      // of the usual success
	Accepts []string // content types of the body; empty: the route reads none, or any
	MaxBody int64    // 0: Options.MaxBodyBytes
}

// pattern is the route in the form of http.ServeMux.
func (r *Route) pattern() string { return r.Method + " " + r.Path }

// Routes lists every route with what it asks for.
func Routes() []Route {
	rows := new(server).table()
	all := make([]Route, len(rows))
	for i, r := range rows {
		all[i] = r.Route
	}
	return all
}

type row struct {
	Route
	mount func(*mount, *Route)
}

// bulkBytes bounds the body of a bulk enrollment.
const bulkBytes = 16 << 20

// table lists every route.
func (s *server) table() []row {
	const (
		get, post, put, patch, del = http.MethodGet, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete

		readCampaigns, writeCampaigns = access.ScopeCampaignsRead, access.ScopeCampaignsWrite
		readEvents, writeEvents       = access.ScopeEventsRead, access.ScopeEventsWrite
		readDLQ, writeDLQ             = access.ScopeDLQRead, access.ScopeDLQWrite
		admin                         = access.ScopeAdmin

		templates   = "/api/campaigns/templates"
		instances   = "/api/campaigns/instances"
		enrollments = "/api/campaigns/enrollments"
		dlq         = "/api/admin/dlq"
		tenants     = "/api/admin/tenants"
	)
	json, plain := []string{"application/json"}, []string(nil)
	bulk := []string{"application/json", "application/x-ndjson"}

	public := func(path, id, summary string, mount func(*mount, *Route)) row {
		return row{Route{get, path, classPublic, "", "Operations", id, summary, 200, plain, 0}, mount}
	}
	scoped := func(method, path, scope string, accepts []string, tag, id, summary string, status int, mount func(*mount, *Route)) row {
		return row{Route{method, path, classScope, scope, tag, id, summary, status, accepts, 0}, mount}
	}

	operator := func(method, path string, accepts []string, tag, id, summary string, status int, mount func(*mount, *Route)) row {
		return row{Route{method, path, classOperator, admin, tag, id, summary, status, accepts, 0}, mount}
	}

	return []row{
		scoped(post, templates, writeCampaigns, json, "Templates", "createTemplate", "Create a template", 201, handle(s.createTemplate)),
		scoped(get, templates, readCampaigns, plain, "Templates", "listTemplates", "List templates", 200, handle(s.listTemplates)),
		scoped(get, templates+"/{id}", readCampaigns, plain, "Templates", "getTemplate", "Show a template", 200, handle(s.getTemplate)),
		scoped(put, templates+"/{id}", writeCampaigns, json, "Templates", "replaceTemplate", "Replace a template", 200, handle(s.replaceTemplate)),
		scoped(del, templates+"/{id}", writeCampaigns, plain, "Templates", "deleteTemplate", "Delete a template; 409 while one of its instances is active", 204, handle(s.deleteTemplate)),

		scoped(get, "/api/campaigns", readCampaigns, plain, "Campaigns", "listCampaigns", "List campaign instances (the same as /api/campaigns/instances)", 200, handle(s.listInstances)),
		scoped(post, instances, writeCampaigns, json, "Campaigns", "createInstance", "Create a campaign instance from a template", 201, handle(s.createInstance)),
		scoped(get, instances, readCampaigns, plain, "Campaigns", "listInstances", "List campaign instances", 200, handle(s.listInstances)),
		scoped(get, instances+"/{id}", readCampaigns, plain, "Campaigns", "getInstance", "Show a campaign instance", 200, handle(s.getInstance)),
		scoped(patch, instances+"/{id}", writeCampaigns, json, "Campaigns", "patchInstance", "Change a campaign instance, its status or its provider campaigns", 200, handle(s.patchInstance)),
		scoped(get, instances+"/{id}/performance", readCampaigns, plain, "Campaigns", "getPerformance", "How a campaign instance performs", 200, handle(s.performance)),

		scoped(post, instances+"/{id}/enrollments", writeCampaigns, json, "Enrollments", "createEnrollment", "Enroll a contact, and take in the events that wait for it", 201, handle(s.createEnrollment)),
		scoped(get, instances+"/{id}/enrollments", readCampaigns, plain, "Enrollments", "listEnrollments", "List the enrollments of an instance", 200, handle(s.listEnrollments)),
		{
			Route{post, instances + "/{id}/enrollments/bulk", classScope, writeCampaigns, "Enrollments", "createEnrollments", "Enroll up to 10,000 contacts, a result for each", 200, bulk, bulkBytes},
			raw(s.bulkEnroll, describeBulk),
		},
		scoped(get, enrollments+"/{id}", readCampaigns, plain, "Enrollments", "getEnrollment", "Show an enrollment", 200, handle(s.getEnrollment)),
		scoped(patch, enrollments+"/{id}", writeCampaigns, json, "Enrollments", "patchEnrollment", "Change an enrollment, or its status by hand", 200, handle(s.patchEnrollment)),
		scoped(del, enrollments+"/{id}", writeCampaigns, plain, "Enrollments", "deleteEnrollment", "Unsubscribe an enrollment (the same as /unsubscribe)", 204, handle(s.deleteEnrollment)),
		scoped(post, enrollments+"/{id}/unsubscribe", writeCampaigns, plain, "Enrollments", "unsubscribeEnrollment", "Unsubscribe an enrollment by hand", 200, handle(s.unsubscribeEnrollment)),
		scoped(get, enrollments+"/{id}/events", readEvents, plain, "Enrollments", "listEnrollmentEvents", "List the events of an enrollment", 200, handle(s.enrollmentEvents)),
		scoped(post, enrollments+"/{id}/refs", writeCampaigns, json, "Enrollments", "addRefs", "Add provider references, and take in the events that wait for them", 200, handle(s.addRefs)),

		{Route{post, "/api/events", classSigned, writeEvents, "Events", "postEvents", "Submit one event, or an array of up to 1,000", 201, json, 0}, raw(s.postEvents, describePostEvents)},
		{Route{post, "/api/campaigns/events/webhook", classSigned, writeEvents, "Events", "postEventsWebhook", "Submit events (the same as /api/events)", 201, json, 0}, raw(s.postEvents, describePostEvents)},
		scoped(get, "/api/events", readEvents, plain, "Events", "searchEvents", "Search events", 200, handle(s.searchEvents)),
		scoped(get, "/api/events/{id}", readEvents, plain, "Events", "getEvent", "Show an event with its payload and timeline", 200, handle(s.getEvent)),
		scoped(post, "/api/events/{id}/assign", writeEvents, json, "Events", "assignEvent", "Tie an event to an enrollment by hand", 200, handle(s.assignEvent)),

		scoped(get, "/api/suppressions", readCampaigns, plain, "Suppressions", "listSuppressions", "List suppressed addresses, as JSON or CSV", 200, either(s.wantsCSV, s.suppressionsCSV, handle(s.listSuppressions))),
		scoped(get, "/api/suppressions/{email}", readCampaigns, plain, "Suppressions", "getSuppression", "Show why an address is suppressed", 200, handle(s.getSuppression)),
		scoped(put, "/api/suppressions/{email}", writeCampaigns, plain, "Suppressions", "putSuppression", "Suppress an address by hand", 200, handle(s.putSuppression)),
		scoped(del, "/api/suppressions/{email}", writeCampaigns, plain, "Suppressions", "deleteSuppression", "Take an address off the list by hand", 204, handle(s.deleteSuppression)),

		scoped(post, "/api/contacts/erase", admin, json, "Contacts", "eraseContact", "Erase a contact: what is personal of it goes, the counts stay", 202, handle(s.eraseContact)),
		scoped(get, "/api/contacts/erasures/{id}", admin, plain, "Contacts", "getErasure", "Show the progress of an erasure", 200, handle(s.getErasure)),

		scoped(post, "/api/sources", admin, json, "Sources", "createSource", "Create a source: one provider's webhook endpoint", 201, handle(s.createSource)),
		scoped(get, "/api/sources", admin, plain, "Sources", "listSources", "List sources", 200, handle(s.listSources)),
		scoped(get, "/api/sources/{id}", admin, plain, "Sources", "getSource", "Show a source", 200, handle(s.getSource)),
		scoped(patch, "/api/sources/{id}", admin, json, "Sources", "patchSource", "Change a source", 200, handle(s.patchSource)),
		scoped(del, "/api/sources/{id}", admin, plain, "Sources", "deleteSource", "Delete a source", 204, handle(s.deleteSource)),
		scoped(post, "/api/sources/{id}/rotate-secret", admin, json, "Sources", "rotateSourceSecret", "Give a source another secret; the former one works on for a grace time", 200, handle(s.rotateSecret)),
		scoped(post, "/api/sources/{id}/rotate-url", admin, json, "Sources", "rotateSourceURL", "Give a source another URL; the former one works on for a grace time", 200, handle(s.rotateURL)),
		scoped(post, "/api/sources/{id}/test", admin, plain, "Sources", "testSource", "Send a sample the whole way of a webhook of this source", 200, handle(s.testSource)),
		scoped(get, "/api/sources/{id}/rejections", admin, plain, "Sources", "listRejections", "List the recent refused requests of a source", 200, handle(s.listRejections)),
		{Route{get, "/api/providers", classKey, "", "Sources", "listProviders", "List providers and how to set each up", 200, plain, 0}, handle(s.listProviders)},

		scoped(post, "/api/keys", admin, json, "Keys", "createKey", "Create an API key; it is shown once", 201, handle(s.createKey)),
		scoped(get, "/api/keys", admin, plain, "Keys", "listKeys", "List API keys", 200, handle(s.listKeys)),
		scoped(post, "/api/keys/{id}/rotate", admin, json, "Keys", "rotateKey", "Make an API key in place of another, which stays valid for a grace time", 201, handle(s.rotateKey)),
		scoped(del, "/api/keys/{id}", admin, plain, "Keys", "revokeKey", "Revoke an API key at once", 204, handle(s.revokeKey)),

		scoped(get, dlq, readDLQ, plain, "Dead letters", "listLetters", "List dead letters", 200, handle(s.listLetters)),
		scoped(get, dlq+"/stats", readDLQ, plain, "Dead letters", "getLetterStats", "Count dead letters", 200, handle(s.letterStats)),
		scoped(post, dlq+"/replay", writeDLQ, json, "Dead letters", "replayLetters", "Replay many dead letters, or count them", 202, handle(s.replayLetters)),
		scoped(get, dlq+"/replays/{id}", readDLQ, plain, "Dead letters", "getReplay", "Show the progress of a bulk replay", 200, handle(s.getReplay)),
		scoped(del, dlq+"/replays/{id}", writeDLQ, plain, "Dead letters", "cancelReplay", "Cancel a bulk replay", 200, handle(s.cancelReplay)),
		scoped(get, dlq+"/{id}", readDLQ, plain, "Dead letters", "getLetter", "Show a dead letter", 200, handle(s.getLetter)),
		scoped(post, dlq+"/{id}/replay", writeDLQ, plain, "Dead letters", "replayLetter", "Replay one dead letter", 200, handle(s.replayLetter)),
		scoped(post, dlq+"/{id}/ignore", writeDLQ, plain, "Dead letters", "ignoreLetter", "Set a dead letter aside", 200, handle(s.ignoreLetter)),
		scoped(post, dlq+"/{id}/restore", writeDLQ, plain, "Dead letters", "restoreLetter", "Take an ignored dead letter back", 200, handle(s.restoreLetter)),

		operator(post, tenants, json, "Tenants", "createTenant", "Create a tenant with its first admin key, which is shown once", 201, handle(s.createTenant)),
		operator(get, tenants, plain, "Tenants", "listTenants", "List tenants", 200, handle(s.listTenants)),
		operator(get, tenants+"/{id}", plain, "Tenants", "getTenant", "Show a tenant", 200, handle(s.getTenant)),
		operator(patch, tenants+"/{id}", json, "Tenants", "patchTenant", "Change a tenant's name or limits", 200, handle(s.patchTenant)),
		operator(post, tenants+"/{id}/suspend", plain, "Tenants", "suspendTenant", "Take nothing of a tenant any more, until it is resumed", 200, handle(s.suspendTenant)),
		operator(post, tenants+"/{id}/resume", plain, "Tenants", "resumeTenant", "Let a suspended tenant act again", 200, handle(s.resumeTenant)),

		scoped(get, "/api/admin/audit", admin, plain, "Operations", "listAudit", "List who did what, when, and from where", 200, handle(s.listAudit)),
		operator(get, "/api/admin/balance", plain, "Operations", "getBalance", "Prove that every event is accounted for", 200, handle(s.balance)),

		public("/health", "getHealth", "State of the service and of each component", handle(s.health)),
		public("/livez", "getLivez", "Whether the process lives", raw(s.livez, describeText)),
		public("/readyz", "getReadyz", "Whether the process takes requests", raw(s.readyz, describeText)),
		public("/metrics", "getMetrics", "Metrics in Prometheus text or OpenMetrics", raw(s.metrics, describeText)),
		public("/openapi.json", "getOpenAPI", "This description", raw(s.openAPI, describeAnyJSON)),
		public("/docs", "getDocs", "This description, readable", raw(s.docs, describeHTML)),

		{Route{post, "/webhooks/{token}", classWebhook, "", "Webhooks", "postWebhook", "A provider's webhook", 200, nil, 0}, raw(s.webhook, describeWebhook)},
		{Route{get, "/webhooks/{token}", classWebhook, "", "", "", "", 200, nil, 0}, raw(s.webhookCheck, nil)},
		{Route{http.MethodOptions, "/webhooks/{token}", classWebhook, "", "", "", "", 204, nil, 0}, raw(s.webhookOptions, nil)},
	}
}
