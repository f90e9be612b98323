package httpapi_test
import ("testing";"net/http/httptest";"tallyhook/internal/httpapi")
func TestSmoke(t *testing.T){
 h,err:=httpapi.New(httpapi.Services{},httpapi.Options{})
 if err!=nil{t.Fatal(err)}
 for _,p:=range []string{"/openapi.json","/livez","/nope","/docs","/api/keys"}{
 w:=httptest.NewRecorder()
 h.ServeHTTP(w,httptest.NewRequest("GET",p,nil))
 t.Log(w.Code,w.Header(),len(w.Body.String()),w.Body.String()[:min(1500,w.Body.Len())])
 }
}
